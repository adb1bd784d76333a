/**
 * VMCBs near valid ones, run: what the list of checks refuses is refused and nothing else is, and the host
 * comes back as it was.
 *
 * @module
 */
import { UnimplementedError } from "../../core/mod.ts";
import {
  Control,
  Cr0,
  Cr4,
  IntControl,
  InterceptWord,
  Misc1,
  S,
  Save,
  Seg,
  Stop,
} from "../../plugins/cpu/mod.ts";
import { Place } from "../silicon/bench.ts";
import { silentOutside } from "../silicon/lab.ts";
import { type GuestMode, SvmBench, SvmPlace } from "../silicon/svm_bench.ts";
import { Prng } from "../vectors/prng.ts";
import { Finding, type Tally } from "./campaign.ts";
import { VMCB_CHECKS, VmcbView } from "./vmcb_checks.ts";
import { VMCB_FIELDS } from "./vmcb_fields.ts";

/** Pages of AVIC, and PAE entries. */
const BACKING = 0x16_0000;
const LOGICAL = 0x16_1000;
const PHYSICAL = 0x16_2000;
const PDPTES = 0x16_3000;
const MEMORY = 0x80_0000n;

/** CR4's bits: those of the APM up to PKE, but for VME and PVI. */
const CR4_BITS = BigInt(
  Cr4.VME | Cr4.PVI | Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE |
    Cr4.OSFXSR | Cr4.CET |
    Cr4.OSXMMEXCPT | Cr4.UMIP | Cr4.FSGSBASE | Cr4.PCIDE | Cr4.SMEP | Cr4.SMAP | Cr4.PKE |
    Cr4.LA57 | Cr4.OSXSAVE,
);

/** What a VMCB is made of besides its mode. */
type Part = (bench: SvmBench) => void;
const PARTS: readonly (readonly [name: string, part: Part])[] = [
  ["plain", () => {}],
  ["nested paging", (bench) => bench.nested()],
  ["AVIC", (bench) => avic(bench, IntControl.AVIC)],
  ["x2AVIC", (bench) => avic(bench, IntControl.AVIC | IntControl.X2AVIC)],
  ["virtual NMIs", (bench) => {
    bench.orControl32(InterceptWord.MISC1, Misc1.NMI);
    bench.orControl32(Control.INT_CONTROL, IntControl.V_NMI_ENABLE);
  }],
  ["a virtual interrupt", (bench) => bench.setControl64(Control.INT_CONTROL, 0x30_000f_0100n)],
  ["an exception to be injected", (bench) => bench.inject(0x8000_0b0d, 0)],
  ["an NMI to be injected", (bench) => bench.inject(0x8000_0202)],
  ["an INT n to be injected", (bench) => bench.inject(0x8000_0480)],
];

function avic(bench: SvmBench, bits: number): void {
  bench.nested();
  bench.orControl32(Control.INT_CONTROL, bits);
  bench.setControl64(Control.AVIC_APIC_BAR, 0xfee0_0000n);
  bench.setControl64(Control.AVIC_BACKING_PAGE, BACKING);
  bench.setControl64(Control.AVIC_LOGICAL_TABLE, LOGICAL);
  bench.setControl64(Control.AVIC_PHYSICAL_TABLE, PHYSICAL | 3);
}

/** Pages of the host: code, stacks, tables, save area, control blocks and maps; then the guest's tables. */
const HOST = [Place.CODE, SvmPlace.GUEST_TABLES] as const;
const GUEST_TABLES_END = SvmPlace.GUEST_TABLES + 0x4000;

/** Keeps the guest from the host's pages, as far as it has tables. */
function confine(bench: SvmBench): void {
  const [start, end] = HOST;
  bench.fill(bench.pageEntry(SvmPlace.NPT, start), ((end - start) >> 12) * 8, 0);
  bench.fill(
    bench.pageEntry(SvmPlace.GUEST_TABLES, start),
    ((GUEST_TABLES_END - start) >> 12) * 8,
    0,
  );
}

/** Whether the guest of a control block is kept from them. */
function confined(block: DataView, cr3: bigint): boolean {
  const at = (offset: number): bigint => block.getBigUint64(offset, true);
  if ((at(Control.NESTED_CONTROL) & 1n) !== 0n) return at(Control.N_CR3) === BigInt(SvmPlace.NPT);
  return (at(Save.CR0) & BigInt(Cr0.PG)) !== 0n && at(Save.CR3) === cr3;
}

const MODES: readonly (GuestMode | "pae")[] = ["long", "compat", "protected", "pae", "real", "v86"];

/** Those that checks are about, drawn more often. */
const CHECKED: ReadonlySet<number> = new Set([
  InterceptWord.MISC1,
  InterceptWord.MISC2,
  Control.IOPM_BASE_PA,
  Control.MSRPM_BASE_PA,
  Control.ASID,
  Control.INT_CONTROL,
  Control.EVENTINJ,
  Control.N_CR3,
  Control.AVIC_APIC_BAR,
  Control.AVIC_BACKING_PAGE,
  Control.AVIC_LOGICAL_TABLE,
  Control.AVIC_PHYSICAL_TABLE,
  Save.CS + 2,
  Save.EFER,
  Save.CR4,
  Save.CR3,
  Save.CR0,
  Save.DR7,
  Save.DR6,
  Save.G_PAT,
]);
const CHECKED_FIELDS = VMCB_FIELDS.filter(([offset]) => CHECKED.has(offset));

/** Flips one to three bits of a field, or puts a small number there. */
function mutate(random: Prng, bench: SvmBench): string {
  const [offset, bytes] = random.pick(random.chance(1, 2) ? CHECKED_FIELDS : VMCB_FIELDS);
  const at = bench.vmcb + offset;
  const field = bench.read(at, bytes);
  if (offset === Control.NESTED_CONTROL) {
    // The other bits are of encrypted guests and nested paging's check of shadow stacks, which there are not.
    field[0]! ^= 1;
  } else if (random.chance(1, 8)) {
    field.fill(0);
    field[0] = random.below(20);
  } else {
    for (let n = 1 + random.below(3); n > 0; n--) {
      const bit = random.below(8 * bytes);
      field[bit >> 3]! ^= 1 << (bit & 7);
    }
  }
  bench.write(at, field);
  const text = Array.from(field, (byte) => byte.toString(16).padStart(2, "0")).reverse().join("");
  return `${offset.toString(16)}h = ${text}`;
}

/**
 * Fields that the processor caches, by the clean bits that cover them (APM vol. 2, 15.15.3): bit, offset,
 * bytes. It does not cache those of bits 3, 10 and 11.
 */
const COVERED: readonly (readonly [bit: number, offset: number, bytes: number])[] = [
  [0, Control.INTERCEPTS, 24],
  [0, Control.TSC_OFFSET, 8],
  [1, Control.IOPM_BASE_PA, 16],
  [4, Control.N_CR3, 8],
  [4, Save.G_PAT, 8],
  ...[Save.CR0, Save.CR3, Save.CR4, Save.EFER].map((offset) => [5, offset, 8] as const),
  [6, Save.DR7, 16],
  [7, Save.GDTR, 16],
  [7, Save.IDTR, 16],
  [8, Save.ES, 64],
  [8, Save.CPL, 1],
  [9, Save.CR2, 8],
  [12, Save.S_CET, 24],
];

/**
 * The control block as VMRUN takes it if it has run as `before` and holds `now`, with these clean bits. Of
 * another ASID, and of another kind of paging, nothing is cached.
 */
function effective(before: Uint8Array, now: Uint8Array, clean: number): Uint8Array {
  const block = now.slice();
  const keys = [[Control.ASID, 4], [Control.NESTED_CONTROL, 1]] as const;
  for (const [offset, bytes] of keys) {
    for (let k = 0; k < bytes; k++) if (before[offset + k] !== now[offset + k]) return block;
  }
  for (const [bit, offset, bytes] of COVERED) {
    if (((clean >>> bit) & 1) === 0) continue;
    block.set(before.subarray(offset, offset + bytes), offset);
  }
  return block;
}

/** What of a host VMRUN and #VMEXIT have to give back, as text. */
function hostState(bench: SvmBench): string {
  const { state } = bench;
  const wide = [S.cr0, S.cr3, S.cr4, S.efer, S.gdtBase, S.idtBase, S.pat, S.dr7]
    .map((field) => state.get(field).toString(16));
  const narrow = [S.gdtLimit, S.idtLimit, S.cpl, S.nestedPaging, S.asid, S.busLocks, S.avicPage]
    .map((field) => state.get32(field).toString(16));
  const segments = [Seg.ES, Seg.CS, Seg.SS, Seg.DS].map((n) => {
    const { selector, attributes, limit, base } = state.segment(n);
    return [selector, attributes, limit, base].map((x) => x.toString(16)).join(":");
  });
  const flags = (bench.flags & ~0x8d5).toString(16);
  return [state.register(0), state.register(4), ...wide, ...narrow, ...segments, flags].join(" ");
}

/** Groups whose fields an exit writes as they are in force; of the others memory keeps what it holds. */
const WRITTEN_BY_EXITS: ReadonlySet<number> = new Set([5, 6, 7, 8, 9, 12]);

/** Runs control blocks on one processor, and says what is wrong with what comes of it. */
class Runner {
  readonly bench: SvmBench = new SvmBench({ model: "zen5", outside: silentOutside() });
  /** What the processor has cached; nothing at first. */
  #cached: Uint8Array | undefined;
  readonly #tally: Tally;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  /** A new guest: its control block says that nothing is cached. */
  forget(): void {
    this.#cached = undefined;
  }

  /**
   * Runs the control block, which has these clean bits and, with nested paging off, CR3 `cr3`.
   *
   * @returns Whether the host is as it was, so that another can run.
   * @throws {Finding} If the processor and the list of checks disagree, or the host is not as it was.
   */
  run(clean: number, cr3: bigint, where: () => string): boolean {
    const { bench } = this;
    const { state, processor } = bench;
    const now = bench.block;
    const block = this.#cached === undefined ? now : effective(this.#cached, now, clean);
    const data = new DataView(block.buffer, block.byteOffset);
    const view = new VmcbView((offset) => data.getBigUint64(offset, true), {
      physicalBits: state.get32(S.physicalBits),
      memory: (address) =>
        address >= 0n && address <= MEMORY - 8n ? bench.get64(Number(address)) : undefined,
      cr4: CR4_BITS,
    });
    const rows = VMCB_CHECKS.filter((row) => row.fails(view));
    processor.writeMsr(0x277, 0x0007_0406_0007_0406n);
    state.set(S.dr7, 0x400n);
    state.setRegister(0, BigInt(bench.vmcb));
    state.set(S.rip, BigInt(Place.CODE));
    const host = hostState(bench);
    const safe = confined(data, cr3);
    bench.write(Place.CODE, [0x0f, 0x01, 0xd8, 0xf4]);
    processor.wake();
    const kind = this.#outcome(where);
    if ((kind === "invalid") !== rows.length > 0) {
      const list = rows.map(({ rule }) => rule).join("; ") || "nothing";
      throw new Finding(`${where()}\n  the processor: ${kind}\n  the list: ${list}`);
    }
    this.#tally.count(kind);
    if (rows.length === 1) this.#tally.row(VMCB_CHECKS.indexOf(rows[0]!));
    // A guest with all of memory to itself may have changed the host's.
    if (kind !== "invalid" && (kind !== "exit" || !safe)) {
      processor.reset();
      return false;
    }
    if (state.get(S.rip) !== BigInt(Place.CODE + 4)) {
      throw new Finding(`${where()}: the host is elsewhere`);
    }
    if (hostState(bench) !== host) {
      throw new Finding(`${where()}: the host\n  ${host}\n  ${hostState(bench)}`);
    }
    if (state.get32(S.gif) !== 0) throw new Finding(`${where()}: GIF is set`);
    this.#cached = undefined;
    if (kind === "exit") {
      const cached = this.#cached = bench.block;
      for (const [bit, offset, bytes] of COVERED) {
        if (WRITTEN_BY_EXITS.has(bit)) continue;
        cached.set(block.subarray(offset, offset + bytes), offset);
      }
    }
    return true;
  }

  #outcome(where: () => string): string {
    const { bench } = this;
    try {
      const { stop } = bench.run(300);
      if (bench.state.get32(S.guestMode) === 1 || stop === Stop.SHUTDOWN) return "running";
      return bench.control64(Control.EXITCODE) === 0xffff_ffff_ffff_ffffn ? "invalid" : "exit";
    } catch (error) {
      if (!(error instanceof UnimplementedError)) throw new Finding(where(), { cause: error });
      return "not implemented";
    }
  }
}

/** How often a guest runs at most, changed each time. */
const ROUNDS = 3;

/**
 * Runs `cases` VMCBs. Those that exit or are refused run again, changed, with clean bits that are right or
 * wrong: what is cached counts then, not what is in memory.
 *
 * @throws {Finding} At the first one that the processor and the list judge differently.
 */
export function fuzzVmcbs(cases: number, seed: number, tally: Tally): void {
  const random = new Prng(seed, 1);
  const runner = new Runner(tally);
  const { bench } = runner;
  for (let k = 0; k < cases;) {
    const first = k;
    const mode = random.pick(MODES);
    const [name, part] = random.pick(PARTS);
    bench.guest(mode === "pae" ? "protected" : mode, random.chance(1, 4) ? 3 : 0);
    bench.write(SvmPlace.GUEST_CODE, Array.from({ length: 16 }, () => random.below(256)));
    if (mode === "pae") {
      bench.set64(PDPTES, BigInt(SvmPlace.GUEST_TABLES + 0x2000) | 1n);
      bench.fill(PDPTES + 8, 24, 0);
      bench.setControl64(Save.CR3, PDPTES);
      bench.setControl64(Save.CR4, Cr4.PAE);
      bench.orControl64(Save.CR0, BigInt(Cr0.PG));
    }
    part(bench);
    confine(bench);
    const cr3 = bench.control64(Save.CR3);
    const changes: string[] = [];
    const where = (): string =>
      `seed ${seed}, case ${first}: ${mode}, ${name}, ${changes.join(", ")}`;
    runner.forget();
    let goes = true;
    for (let round = 0; round < ROUNDS && goes && k < cases; round++, k++) {
      for (let n = random.below(4); n >= 0; n--) changes.push(mutate(random, bench));
      const clean = round === 0 ? 0 : random.chance(1, 4) ? -1 : random.below(0x1_0000_0000) | 0;
      bench.setControl32(Control.CLEAN_BITS, clean);
      if (round > 0) changes.push(`run again with clean bits ${(clean >>> 0).toString(16)}`);
      goes = runner.run(clean, cr3, where);
    }
    bench.standardTables();
  }
}
