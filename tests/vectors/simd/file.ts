/**
 * The file of what was recorded: gzip over a line of JSON (the processor, and for each form its name and
 * how many cases) and the results in order, each as what differs from the state before.
 *
 * @module
 */
import { SIMD_FORMS } from "./forms.ts";
import { ARITHMETIC, caseCount, initialState, type SimdState } from "./inputs.ts";

/** What a case left, or that it raised #XM. */
export interface SimdResult extends SimdState {
  /** #XM was raised. */
  readonly faulted: boolean;
}

const FILE = new URL("./data/simd.bin.gz", import.meta.url);

/** Pieces of a state, of which those that changed are in the file. */
const Changed = { VECTOR: 1, REGISTER: 0x40, FLAGS: 0x200, MXCSR: 0x400, MEMORY: 0x800 } as const;
const FAULTED = 0x8000;
const PIECE = 16;

interface Header {
  readonly processor: string;
  readonly forms: readonly (readonly [string, number])[];
}

async function transformed(
  bytes: Uint8Array<ArrayBuffer>,
  stream: CompressionStream | DecompressionStream,
): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(
    await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer(),
  );
}

/** The pieces of 16 bytes that two arrays differ in, as bits. */
function differing(a: Uint8Array, b: Uint8Array): number {
  let bits = 0;
  for (const [k, byte] of a.entries()) if (byte !== b[k]) bits |= 1 << (k / PIECE);
  return bits;
}

/** Writes the file. */
export async function writeSimd(
  processor: string,
  results: ReadonlyMap<string, readonly SimdResult[]>,
): Promise<number> {
  const out: number[] = [];
  const u16 = (value: number): void => void out.push(value & 0xff, value >> 8);
  const forms: [string, number][] = [];
  for (const form of SIMD_FORMS) {
    const list = results.get(form.name);
    if (list === undefined) continue;
    forms.push([form.name, list.length]);
    for (const [k, result] of list.entries()) {
      const before = initialState(form, k);
      const vectors = differing(before.vectors, result.vectors);
      const registers = result.registers.map((value, n) =>
        value === before.registers[n] ? 0 : 1 << n
      );
      const memory = differing(before.memory, result.memory);
      const mask = vectors * Changed.VECTOR |
        (registers[0]! | registers[1]! | registers[2]!) * Changed.REGISTER |
        (result.flags === before.flags ? 0 : Changed.FLAGS) |
        (result.mxcsr === before.mxcsr ? 0 : Changed.MXCSR) |
        memory * Changed.MEMORY | (result.faulted ? FAULTED : 0);
      u16(mask);
      for (let n = 0; n < 6; n++) {
        if ((vectors >> n) & 1) out.push(...result.vectors.subarray(PIECE * n, PIECE * (n + 1)));
      }
      for (const [n, bit] of registers.entries()) {
        if (bit === 0) continue;
        for (let at = 0n; at < 64n; at += 8n) {
          out.push(Number((result.registers[n]! >> at) & 0xffn));
        }
      }
      if (mask & Changed.FLAGS) u16(result.flags);
      if (mask & Changed.MXCSR) u16(result.mxcsr);
      for (let n = 0; n < 4; n++) {
        if ((memory >> n) & 1) out.push(...result.memory.subarray(PIECE * n, PIECE * (n + 1)));
      }
    }
  }
  const header: Header = { processor, forms };
  const text = new TextEncoder().encode(JSON.stringify(header) + "\n");
  const bytes = new Uint8Array(text.length + out.length);
  bytes.set(text);
  bytes.set(out, text.length);
  const packed = await transformed(bytes, new CompressionStream("gzip"));
  await Deno.mkdir(new URL(".", FILE), { recursive: true });
  await Deno.writeFile(FILE, packed);
  return packed.length;
}

/** What was recorded, by the name of the form. Every form of the list must be there as it is now. */
export async function readSimd(): Promise<ReadonlyMap<string, readonly SimdResult[]>> {
  const bytes = await transformed(await Deno.readFile(FILE), new DecompressionStream("gzip"));
  let at = bytes.indexOf(10) + 1;
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, at))) as Header;
  const view = new DataView(bytes.buffer);
  const u16 = (): number => {
    at += 2;
    return view.getUint16(at - 2, true);
  };
  const counts = new Map(header.forms);
  const known = new Map<string, readonly SimdResult[]>();
  for (const form of SIMD_FORMS) {
    const count = counts.get(form.name);
    if (count === undefined) continue;
    if (count !== caseCount(form)) throw new Error(`${form.name} was recorded with other cases`);
    const list: SimdResult[] = [];
    for (let k = 0; k < count; k++) {
      const before = initialState(form, k);
      const mask = u16();
      const take = (into: Uint8Array, n: number): void => {
        into.set(bytes.subarray(at, at + PIECE), PIECE * n);
        at += PIECE;
      };
      for (let n = 0; n < 6; n++) if ((mask >> n) & 1) take(before.vectors, n);
      const registers = before.registers.map((value, n) => {
        if ((mask & (Changed.REGISTER << n)) === 0) return value;
        at += 8;
        return view.getBigUint64(at - 8, true);
      });
      const flags = mask & Changed.FLAGS ? u16() & ARITHMETIC : before.flags;
      const mxcsr = mask & Changed.MXCSR ? u16() : before.mxcsr;
      for (let n = 0; n < 4; n++) if (mask & (Changed.MEMORY << n)) take(before.memory, n);
      list.push({ ...before, registers, flags, mxcsr, faulted: (mask & FAULTED) !== 0 });
    }
    known.set(form.name, list);
  }
  if (at !== bytes.length) throw new Error("the file does not fit the list of forms");
  return known;
}
