/**
 * Writes `docs/coverage.md`: which forms of instructions that the decoder knows have been recorded on
 * silicon, by group.
 *
 *     deno run -A tools/coverage_doc.ts           # writes the page
 *     deno run -A tools/coverage_doc.ts --check   # fails if the page is not current
 *
 * The decoder is asked for every encoding of its maps, and a form is what the disassembler makes of one:
 * the mnemonic and the kinds of its operands. What was recorded goes through the same disassembler.
 */
import { disassemble } from "../plugins/cpu/mod.ts";
import { loadVectors } from "../tests/vectors/read.ts";
import { readSimd } from "../tests/vectors/simd/file.ts";
import { SIMD_FORMS } from "../tests/vectors/simd/forms.ts";
import { FORMS as X87_FORMS } from "../tests/vectors/x87/forms.ts";

const PAGE = new URL("../docs/coverage.md", import.meta.url);

type Bits = 32 | 64;

/** Kinds of operands by the names of registers. */
const KINDS: readonly (readonly [RegExp, string])[] = [
  [/^(byte |word |dword |qword |tword |far |[a-z]+ )?([c-gs]s:)?\[.*\]$/, "m"],
  [/^[0-9a-f]+h:[0-9a-f]+h$/, "far"],
  [/^-?[0-9a-f]+h?$/, "i"],
  [/^st(\(\d\))?$/, "st"],
  [/^[xy]mm(?=\d)/, ""],
  [/^mm\d$/, "mm"],
  [/^[c-gs]s$/, "sreg"],
  [/^cr\d+$/, "cr"],
  [/^dr\d+$/, "dr"],
  [/^([a-d][lh]|(sp|bp|si|di)l|r\d+b)$/, "r8"],
  [/^([a-d]x|sp|bp|si|di|r\d+w)$/, "r16"],
  [/^(e[a-d]x|e(sp|bp|si|di)|r\d+d)$/, "r32"],
  [/^(r[a-d]x|r(sp|bp|si|di)|r\d+)$/, "r64"],
];

function kindOf(operand: string): string {
  for (const [pattern, kind] of KINDS) {
    if (!pattern.test(operand)) continue;
    if (kind === "") return operand.slice(0, 3);
    const size = kind === "m" ? /^(byte|word|dword|qword|tword|far)/.exec(operand)?.[1] : undefined;
    return size === undefined ? kind : `${size} m`;
  }
  return operand;
}

/** A form: mnemonic and kinds of operands. */
function formOf(text: string): string {
  const plain = text.replace(/^(lock|rep|repe|repne|repz|repnz) /, "");
  const space = plain.search(/ /);
  if (space < 0) return plain;
  const operands = plain.slice(space + 1).replace(/\[[^\]]*\]/g, "[]").split(/, */);
  return `${plain.slice(0, space)} ${operands.map(kindOf).join(", ")}`;
}

function formAt(bytes: Uint8Array, bits: Bits): string | undefined {
  const text = disassemble(bytes, bits, 0n)?.text;
  return text === undefined ? undefined : formOf(text);
}

const GROUPS = [
  "general purpose",
  "system",
  "x87",
  "MMX",
  "SSE to SSE4.2, AES, PCLMULQDQ, SHA",
  "AVX, AVX2, FMA, F16C",
  "BMI and other VEX forms of general registers",
  "APX (EVEX map 4, and what it promotes)",
] as const;
type Group = (typeof GROUPS)[number];

/** What has to do with the system, or with virtual machines. */
const SYSTEM =
  /^(lgdt|lidt|lldt|ltr|sgdt|sidt|sldt|str|smsw|lmsw|clts|invd|wbinvd|wbnoinvd|invlpg|invlpga|invpcid|invept|invvpid|rdmsr|wrmsr\w*|rdpmc|rdtscp?|swapgs|syscall|sysret|sysenter|sysexit|hlt|cli|sti|in|out|(in|out)s[bwd]|iret[wdq]?|xsetbv|xgetbv|rdpkru|wrpkru|monitor\w*|mwait\w*|vm\w+|clgi|stgi|skinit|clac|stac|rd[fg]sbase|wr[fg]sbase|rsm|lar|lsl|verr|verw|arpl|cpuid|rdpid|rdpru|x?save\w*|xrstor\w*|fxsave\w*|fxrstor\w*|int\d?|into|ud\d|encls|enclu|getsec|seamcall|clzero|mcommit)$/;

/** At the end of forms of that encoding. */
const EVEX = " (EVEX)";

type Encoding = "legacy" | "vex" | "evex";

function groupOf(form: string, encoding: Encoding, escape: boolean): Group {
  const [name = ""] = form.split(" ");
  const vector = /\b[xy]mm\b/.test(form);
  if (encoding === "evex") return GROUPS[7];
  if (encoding === "vex") {
    return vector || /^v/.test(name) ? GROUPS[5] : GROUPS[6];
  }
  if (escape) return "x87";
  if (/\bcr\b|\bdr\b/.test(form) || SYSTEM.test(name)) return "system";
  if (vector || /^(ld|st)mxcsr$|^movnt|^pause$|fence$/.test(name)) return GROUPS[4];
  return /\bmm\b/.test(form) || name === "emms" ? "MMX" : "general purpose";
}

/** Everything the decoder takes, by group. */
class Universe {
  readonly groups: ReadonlyMap<Group, Set<string>> = new Map(
    GROUPS.map((group) => [group, new Set<string>()]),
  );
  readonly #bytes = new Uint8Array(15);

  #try(bytes: readonly number[], bits: Bits, encoding: Encoding, escape = false): void {
    this.#bytes.fill(0);
    this.#bytes.set(bytes);
    const form = formAt(this.#bytes, bits);
    if (form === undefined) return;
    // What APX promotes is another form than what it promotes.
    const name = encoding === "evex" ? `${form}${EVEX}` : form;
    this.groups.get(groupOf(form, encoding, escape))!.add(name);
  }

  /** The ModRM bytes that tell forms apart: all digits, with memory and with a register. */
  *#modrms(all: boolean): Generator<number> {
    for (let reg = 0; reg < 8; reg++) {
      // Memory at RSI.
      yield reg << 3 | 6;
      for (let rm = 0; rm < (all ? 8 : 1); rm++) yield 0xc0 | reg << 3 | rm;
    }
  }

  legacy(): void {
    const maps: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
    for (const bits of [32, 64] as const) {
      const prefixes = [
        [],
        [0x66],
        [0xf3],
        [0xf2],
        ...(bits === 64 ? [[0x48], [0x66, 0x48], [0xf3, 0x48], [0xf2, 0x48]] : []),
      ];
      for (const [map, escape] of maps.entries()) {
        for (let opcode = 0; opcode < 256; opcode++) {
          const x87 = map === 0 && (opcode & 0xf8) === 0xd8;
          const all = x87 || (map === 1 && [0x01, 0xae, 0xc7, 0x1e].includes(opcode));
          for (const prefix of prefixes) {
            for (const modrm of this.#modrms(all)) {
              this.#try([...prefix, ...escape, opcode, modrm], bits, "legacy", x87);
            }
          }
        }
      }
    }
  }

  vex(): void {
    for (let map = 1; map <= 3; map++) {
      for (let tail = 0; tail < 16; tail++) {
        // W, vvvv of ones, L and pp.
        const payload = (tail & 8) << 4 | 0x78 | (tail & 7);
        for (let opcode = 0; opcode < 256; opcode++) {
          for (const modrm of this.#modrms(false)) {
            this.#try([0xc4, 0xe0 | map, payload, opcode, modrm], 64, "vex");
          }
          // Gathers take an index register.
          this.#try([0xc4, 0xe0 | map, payload & ~8, opcode, 0x04, 0x16], 64, "vex");
        }
      }
    }
  }

  evex(): void {
    for (const map of [2, 3, 4, 7]) {
      for (let pp = 0; pp < 4; pp++) {
        for (const wide of [0, 0x80]) {
          // ND and NF, each of them or neither or both.
          for (const flags of [0x08, 0x18, 0x0c, 0x1c]) {
            for (let opcode = 0; opcode < 256; opcode++) {
              for (const modrm of this.#modrms(false)) {
                this.#try([0x62, 0xf0 | map, wide | 0x7c | pp, flags, opcode, modrm], 64, "evex");
              }
            }
          }
        }
      }
    }
  }
}

/** Forms that were recorded. */
async function recorded(): Promise<ReadonlySet<string>> {
  const forms = new Set<string>();
  const add = (bytes: Uint8Array, bits: Bits): void => {
    const form = formAt(bytes, bits);
    if (form !== undefined) forms.add(form);
  };
  const padded = (code: readonly number[]): Uint8Array => {
    const bytes = new Uint8Array(32);
    bytes.set(code.slice(0, 32));
    return bytes.subarray(0, 15);
  };
  for (const set of ["base", "extended"] as const) {
    const { vectors } = await loadVectors(set);
    for (const { code, retired, mode } of vectors) {
      for (const offset of retired) add(code.subarray(offset, offset + 15), mode);
    }
  }
  for (const { code } of X87_FORMS) {
    // Some are led up to by other instructions.
    for (let at = 0; at < code.length;) {
      const bytes = padded(code.slice(at));
      add(bytes, 64);
      at += disassemble(bytes, 64, 0n)?.length ?? code.length;
    }
  }
  const simd = await readSimd();
  for (const { name, code } of SIMD_FORMS) if (simd.has(name)) add(padded(code), 64);
  return forms;
}

/** Names of forms that are missing, by mnemonic, where every form of a mnemonic is missing. */
function missing(forms: ReadonlySet<string>, known: ReadonlySet<string>): string[] {
  const names = (set: Iterable<string>) => new Set([...set].map((form) => form.split(" ")[0]!));
  const there = names(known);
  return [...names(forms)].filter((name) => !there.has(name)).sort();
}

/** The page as it ought to be. */
export async function renderCoveragePage(): Promise<string> {
  const universe = new Universe();
  universe.legacy();
  universe.vex();
  universe.evex();
  const known = await recorded();
  const rows: string[] = [];
  const lists: string[] = [];
  let [all, done] = [0, 0];
  for (const [group, forms] of universe.groups) {
    const count = [...forms].filter((form) => known.has(form)).length;
    all += forms.size;
    done += count;
    rows.push(
      `| ${group} | ${forms.size} | ${count} | ${Math.round(100 * count / forms.size)} % |`,
    );
    const names = missing(forms, known).map((name) => `\`${name}\``).join(" ");
    if (count === 0) lists.push(`**${group}**: all of them\n`);
    else if (names !== "") lists.push(`**${group}**: ${names}\n`);
  }
  return await format(`<!-- Written by tools/coverage_doc.ts from the code. Do not edit. -->

# Forms of instructions, and which are recorded on silicon

A form is a mnemonic with the kinds of its operands, as the disassembler prints them for all encodings
that the decoder takes in 32- and 64-bit mode. Recorded means that the files under \`tests/vectors\` have
what a processor made of it, and that the tests run it against that.

| group | forms | recorded | |
| --- | --- | --- | --- |
${rows.join("\n")}
| together | ${all} | ${done} | ${Math.round(100 * done / all)} % |

## Mnemonics of which no form is recorded

Recorders run in user mode, so that nothing privileged is recorded, nor what depends on time, on the
operating system or on an instruction set that the recording processor has not, as APX. These are held to the
manuals by the tests in \`tests/silicon\` and \`tests/apx\`, to each other's tiers and vendors by
\`deno task random\`, and, where there is one, to \`/dev/kvm\` by \`deno task kvm:compare\`.

${lists.join("\n")}
`);
}

async function format(text: string): Promise<string> {
  const process = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext", "md", "--line-width", "100", "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  const { success, stdout, stderr } = await process.output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`deno fmt: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** The page as it is; empty if there is none. */
async function readCoveragePage(): Promise<string> {
  try {
    return await Deno.readTextFile(PAGE);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

if (import.meta.main) {
  const page = await renderCoveragePage();
  if (!Deno.args.includes("--check")) await Deno.writeTextFile(PAGE, page);
  else if (page !== await readCoveragePage()) {
    console.error("docs/coverage.md is not current: run tools/coverage_doc.ts");
    Deno.exit(1);
  }
}
