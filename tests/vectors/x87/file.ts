/**
 * The file of the x87 vectors: what a processor left in the records of every form.
 *
 * gzip over: a number of four bytes, so many bytes of JSON ({@linkcode Header}), and for every form in
 * turn its output records, each XORed with its input record, RFLAGS under `FLAGS_MASK`, and registers in
 * both by physical number. So what an instruction left alone is 0.
 *
 * @module
 */
import { decompress } from "../read.ts";
import { compress } from "../write.ts";
import { FORMS, inputOf } from "./forms.ts";
import { FLAGS_MASK, programOf, Record, REGISTER_BYTES, State } from "./layout.ts";

/** What the file says about itself. */
export interface Header {
  /** Name of the processor, as /proc/cpuinfo has it, with family and model. */
  readonly processor: string;
  /** The forms by name, with a check sum of program and input. */
  readonly forms: readonly (readonly [string, number])[];
}

/** Where the file is. */
export const FILE: URL = new URL("./data/x87.bin.gz", import.meta.url);

/** FNV-1a of what a form is run on. */
export function checkSum(index: number): number {
  const { code, count } = FORMS[index]!;
  let hash = 0x811c_9dc5;
  for (const bytes of [programOf(code, count), inputOf(index)]) {
    for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x0100_0193) >>> 0;
  }
  return hash;
}

/**
 * Brings the registers of the records into physical order, and cuts RFLAGS to what is compared. The
 * selectors go: an operating system that switches tasks by XSAVE in 64-bit mode loses them.
 */
export function normalized(records: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const bytes = records.slice();
  for (let at = 0; at < bytes.length; at += Record.BYTES) {
    const view = new DataView(bytes.buffer, at, Record.BYTES);
    const top = (view.getUint16(State.STATUS, true) >> 11) & 7;
    for (let k = 0; k < 8; k++) {
      const from = at + State.REGISTERS + REGISTER_BYTES * k;
      const to = at + State.REGISTERS + REGISTER_BYTES * ((top + k) & 7);
      bytes.set(records.subarray(from, from + REGISTER_BYTES), to);
    }
    view.setUint16(State.SELECTOR, 0, true);
    view.setUint16(State.DATA_SELECTOR, 0, true);
    view.setBigUint64(Record.FLAGS, view.getBigUint64(Record.FLAGS, true) & FLAGS_MASK, true);
  }
  return bytes;
}

function xor(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return a.map((byte, k) => byte ^ b[k]!);
}

/** Makes a file of the outputs of all forms. */
export async function encode(
  processor: string,
  outputs: readonly Uint8Array<ArrayBuffer>[],
): Promise<Uint8Array> {
  const forms = FORMS.map(({ name }, index) => [name, checkSum(index)] as const);
  const header: Header = { processor, forms };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const parts = outputs.map((output, index) => xor(normalized(output), normalized(inputOf(index))));
  const length = new Uint8Array(Uint32Array.of(text.length).buffer);
  return await compress(
    new Uint8Array(await new Blob([length, text, ...parts]).arrayBuffer()),
  );
}

/** What the processor left in the records of each form, in the order of {@linkcode normalized}. */
export async function load(): Promise<
  { readonly header: Header; readonly outputs: readonly Uint8Array<ArrayBuffer>[] }
> {
  const bytes = await decompress(await Deno.readFile(FILE));
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as Header;
  let at = 4 + length;
  const outputs = FORMS.map(({ count }, index) => {
    const part = bytes.slice(at, at += count * Record.BYTES);
    return xor(part, normalized(inputOf(index)));
  });
  return { header, outputs };
}
