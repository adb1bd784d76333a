/**
 * VMCSs near valid ones, entered: what the list of checks refuses is refused as the list says and nothing
 * else is, and the host is afterwards what it was or what the host-state area says.
 *
 * @module
 */
import { UnimplementedError } from "../../core/mod.ts";
import {
  Activity,
  Cr0,
  Cr4,
  EntryControl,
  ExitControl,
  Pin,
  Primary,
  Rflags,
  S,
  Secondary,
  Seg,
  Tertiary,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { Place } from "../silicon/bench.ts";
import {
  At,
  exitText,
  type Fields,
  standardFields,
  UNPAGED,
  VMCS_FIELDS,
  VmxLab,
} from "../silicon/vmx_lab.ts";
import { Prng } from "../vectors/prng.ts";
import { Finding, type Tally } from "./campaign.ts";
import { ENTRY_CHECKS, expected } from "./vmcs_checks.ts";
import { VmcsView } from "./vmcs_view.ts";

const standard = standardFields();
/** Four-level tables that map the bench's 8 MiB one to one, from {@linkcode At.SCRATCH} on. */
const EPT = At.SCRATCH;
const EPT_POINTER = BigInt(EPT) | 0x1en;
const VAPIC = At.SCRATCH + 0x4000;
const BITMAPS = At.SCRATCH + 0x5000;
const DESCRIPTOR = At.SCRATCH + 0x8000;
const PDPTES = At.SCRATCH + 0x9000;
const MSR_LIST = At.SCRATCH + 0xa000;
/** VMX-abort indicator of a VMCS region. */
const ABORT = 4;
/** A region that a link pointer may name. */
const LINKED = At.OTHER;

const controls = (encoding: number, bits: number): bigint =>
  BigInt(standard[encoding]!) | BigInt(bits >>> 0);
const secondary = (bits: number, primary = 0): Fields => ({
  [Vmcs.PRIMARY_CONTROLS]: controls(Vmcs.PRIMARY_CONTROLS, Primary.SECONDARY | primary),
  [Vmcs.SECONDARY_CONTROLS]: bits >>> 0,
});
const ept = (bits = 0, primary = 0): Fields => ({
  ...secondary(Secondary.EPT | bits, primary),
  [Vmcs.EPT_POINTER]: EPT_POINTER,
});

/** Real mode, or virtual-8086 mode, which differ in rights, CR0 and RFLAGS. */
function realSegments(rights: number): Record<number, bigint | number> {
  const fields: Record<number, bigint | number> = {};
  for (let k = 0; k < 6; k++) {
    fields[Vmcs.GUEST_ES_SELECTOR + 2 * k] = 0x1000;
    fields[Vmcs.GUEST_ES_BASE + 2 * k] = 0x1_0000;
    fields[Vmcs.GUEST_ES_LIMIT + 2 * k] = 0xffff;
    fields[Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * k] = k === 1 && rights !== 0xf3 ? 0x9b : rights;
  }
  return fields;
}

const LEGACY: Fields = {
  [Vmcs.ENTRY_CONTROLS]: BigInt(standard[Vmcs.ENTRY_CONTROLS]!) & ~BigInt(EntryControl.IA32E_GUEST),
  [Vmcs.GUEST_EFER]: 0,
  [Vmcs.GUEST_CR3]: PDPTES,
  [Vmcs.GUEST_CS_SELECTOR]: UNPAGED[Vmcs.GUEST_CS_SELECTOR]!,
  [Vmcs.GUEST_CS_ACCESS_RIGHTS]: UNPAGED[Vmcs.GUEST_CS_ACCESS_RIGHTS]!,
};

/** Valid VMCSs to start from. */
const BASES: readonly (readonly [name: string, fields: Fields])[] = [
  ["long mode", {}],
  ["long mode, everything loaded and saved", {
    [Vmcs.ENTRY_CONTROLS]: controls(
      Vmcs.ENTRY_CONTROLS,
      EntryControl.LOAD_DEBUG | EntryControl.LOAD_PAT,
    ),
    [Vmcs.EXIT_CONTROLS]: controls(
      Vmcs.EXIT_CONTROLS,
      ExitControl.SAVE_DEBUG | ExitControl.SAVE_PAT | ExitControl.LOAD_PAT | ExitControl.SAVE_TIMER,
    ),
    [Vmcs.PIN_CONTROLS]: controls(Vmcs.PIN_CONTROLS, Pin.PREEMPTION_TIMER),
    [Vmcs.PREEMPTION_TIMER]: 1000,
    [Vmcs.GUEST_PAT]: 0x0007_0406_0007_0406n,
    [Vmcs.HOST_PAT]: 0x0007_0406_0007_0406n,
  }],
  ["long mode, bitmaps and lists", {
    ...secondary(
      Secondary.SHADOW_VMCS | Secondary.TSC_SCALING,
      Primary.IO_BITMAPS | Primary.MSR_BITMAPS,
    ),
    [Vmcs.IO_BITMAP_A]: BITMAPS,
    [Vmcs.IO_BITMAP_B]: BITMAPS + 0x1000,
    [Vmcs.MSR_BITMAP]: BITMAPS + 0x2000,
    [Vmcs.VMREAD_BITMAP]: BITMAPS,
    [Vmcs.VMWRITE_BITMAP]: BITMAPS,
    [Vmcs.EXIT_MSR_STORE_COUNT]: 1,
    [Vmcs.EXIT_MSR_STORE_ADDRESS]: MSR_LIST,
    [Vmcs.EXIT_MSR_LOAD_COUNT]: 1,
    [Vmcs.EXIT_MSR_LOAD_ADDRESS]: MSR_LIST + 0x100,
    [Vmcs.ENTRY_MSR_LOAD_COUNT]: 1,
    [Vmcs.ENTRY_MSR_LOAD_ADDRESS]: MSR_LIST + 0x200,
  }],
  ["EPT, VPID, PML, VM functions", {
    ...ept(Secondary.VPID | Secondary.PML | Secondary.VM_FUNCTIONS | Secondary.MODE_BASED_EXECUTE),
    [Vmcs.EPT_POINTER]: EPT_POINTER | 0x40n,
    [Vmcs.PML_ADDRESS]: BITMAPS,
    [Vmcs.PML_INDEX]: 511,
    [Vmcs.VM_FUNCTION_CONTROLS]: 1,
    [Vmcs.EPTP_LIST_ADDRESS]: BITMAPS + 0x1000,
  }],
  ["the virtual APIC in memory", {
    ...secondary(Secondary.VIRTUALIZE_APIC_ACCESSES | Secondary.APIC_REGISTERS, Primary.TPR_SHADOW),
    [Vmcs.VIRTUAL_APIC_ADDRESS]: VAPIC,
    [Vmcs.APIC_ACCESS_ADDRESS]: BITMAPS,
  }],
  ["the TPR shadow", {
    [Vmcs.PRIMARY_CONTROLS]: controls(Vmcs.PRIMARY_CONTROLS, Primary.TPR_SHADOW),
    [Vmcs.VIRTUAL_APIC_ADDRESS]: VAPIC,
    [Vmcs.TPR_THRESHOLD]: 4,
  }],
  ["virtual interrupts, posted interrupts and IPIs", {
    ...secondary(
      Secondary.VIRTUALIZE_X2APIC | Secondary.APIC_REGISTERS | Secondary.VIRTUAL_INTERRUPTS,
      Primary.TPR_SHADOW | Primary.TERTIARY,
    ),
    [Vmcs.TERTIARY_CONTROLS]: Tertiary.IPI_VIRTUALIZATION,
    [Vmcs.PIN_CONTROLS]: controls(
      Vmcs.PIN_CONTROLS,
      Pin.EXTERNAL_INTERRUPT | Pin.NMI | Pin.VIRTUAL_NMIS | Pin.POSTED_INTERRUPTS,
    ),
    [Vmcs.EXIT_CONTROLS]: controls(Vmcs.EXIT_CONTROLS, ExitControl.ACKNOWLEDGE_INTERRUPT),
    [Vmcs.VIRTUAL_APIC_ADDRESS]: VAPIC,
    [Vmcs.POSTED_INTERRUPT_VECTOR]: 0xf2,
    [Vmcs.POSTED_INTERRUPT_DESCRIPTOR]: DESCRIPTOR,
    [Vmcs.PID_POINTER_TABLE]: DESCRIPTOR + 0x100,
    [Vmcs.LAST_PID_POINTER_INDEX]: 3,
  }],
  ["an interrupt to be injected", {
    [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0030,
    [Vmcs.GUEST_RFLAGS]: Rflags.IF | 2,
  }],
  ["an NMI to be injected", { [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0202 }],
  ["an exception to be injected", {
    [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0b0d,
    [Vmcs.ENTRY_EXCEPTION_ERROR]: 0x1234,
  }],
  ["an INT n to be injected", {
    [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0480,
    [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 2,
  }],
  ["an MTF exit to be injected", { [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0700 }],
  ["a shadow", { [Vmcs.GUEST_INTERRUPTIBILITY]: 1, [Vmcs.GUEST_RFLAGS]: Rflags.IF | 2 }],
  ["a shadow and a single step", {
    [Vmcs.GUEST_INTERRUPTIBILITY]: 2,
    [Vmcs.GUEST_RFLAGS]: Rflags.TF | 2,
    [Vmcs.GUEST_PENDING_DEBUG]: 0x4000,
  }],
  ["a halted guest", {
    [Vmcs.GUEST_ACTIVITY]: Activity.HLT,
    [Vmcs.PIN_CONTROLS]: controls(Vmcs.PIN_CONTROLS, Pin.PREEMPTION_TIMER),
    [Vmcs.PREEMPTION_TIMER]: 10,
  }],
  ["a linked VMCS", { [Vmcs.LINK_POINTER]: LINKED }],
  ["protected mode, PAE", {
    ...LEGACY,
    [Vmcs.GUEST_CR4]: Cr4.PAE | Cr4.VMXE,
  }],
  ["protected mode, PAE and EPT", {
    ...LEGACY,
    ...ept(),
    [Vmcs.GUEST_CR4]: Cr4.PAE | Cr4.VMXE,
    [Vmcs.GUEST_PDPTE0]: BigInt(Place.TABLES + 0x2000) | 1n,
  }],
  ["virtual-8086 mode", {
    ...LEGACY,
    ...realSegments(0xf3),
    [Vmcs.GUEST_CR4]: Cr4.PAE | Cr4.VMXE,
    [Vmcs.GUEST_RFLAGS]: 0x2_3002n,
    [Vmcs.GUEST_RIP]: 0x8000,
  }],
  ["unrestricted, without paging", { ...UNPAGED, ...ept(Secondary.UNRESTRICTED_GUEST) }],
  ["unrestricted, in real mode", {
    ...UNPAGED,
    ...ept(Secondary.UNRESTRICTED_GUEST),
    ...realSegments(0x93),
    [Vmcs.GUEST_CR0]: Cr0.NE | Cr0.ET,
    [Vmcs.GUEST_RIP]: 0x8000,
  }],
];

/** Groups of fields, from which a mutation chooses with equal weight: there are few controls that matter. */
const FIELDS: readonly number[] = VMCS_FIELDS.map(([, encoding]) => encoding);
const inGroup = (type: number): readonly number[] =>
  FIELDS.filter((code) => ((code >> 10) & 3) === type);
const CHOICES: readonly (readonly number[])[] = [
  inGroup(0),
  inGroup(1),
  inGroup(2),
  inGroup(2),
  inGroup(3),
];
/** Fields by which rules hang together. */
const KEYS: readonly number[] = [
  Vmcs.PIN_CONTROLS,
  Vmcs.PRIMARY_CONTROLS,
  Vmcs.SECONDARY_CONTROLS,
  Vmcs.EXIT_CONTROLS,
  Vmcs.ENTRY_CONTROLS,
  Vmcs.ENTRY_INTERRUPTION_INFO,
  Vmcs.GUEST_INTERRUPTIBILITY,
  Vmcs.GUEST_ACTIVITY,
  Vmcs.GUEST_PENDING_DEBUG,
  Vmcs.GUEST_RFLAGS,
  Vmcs.GUEST_CR0,
  Vmcs.GUEST_CR4,
  Vmcs.GUEST_CS_ACCESS_RIGHTS,
  Vmcs.GUEST_SS_ACCESS_RIGHTS,
];
const bitsOf = (encoding: number): number => [16, 64, 32, 64][(encoding >> 13) & 3]!;

/** A field with one to three bits flipped, or with a small number or all ones in it. */
function mutate(random: Prng, fields: Map<number, bigint>): number {
  const encoding = random.pick(random.chance(1, 4) ? KEYS : random.pick(CHOICES));
  const bits = bitsOf(encoding);
  let value = fields.get(encoding)!;
  if (random.chance(1, 8)) value = BigInt(random.below(20));
  else if (random.chance(1, 16)) value = (1n << BigInt(bits)) - 1n - BigInt(random.below(4));
  else for (let n = 1 + random.below(3); n > 0; n--) value ^= 1n << BigInt(random.below(bits));
  fields.set(encoding, BigInt.asUintN(bits, value));
  return encoding;
}

const HOST_FIELDS = new Set(inGroup(3));
/** Fields that lists of MSRs hang on: their entries may be refused one by one. */
const LIST_FIELDS: ReadonlySet<number> = new Set([
  Vmcs.EXIT_MSR_STORE_ADDRESS,
  Vmcs.EXIT_MSR_LOAD_ADDRESS,
  Vmcs.EXIT_MSR_STORE_COUNT,
  Vmcs.EXIT_MSR_LOAD_COUNT,
]);
const REGISTERS: readonly number[] = [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/** The host's registers as the host-state area gives them (SDM vol. 3, 28.5), as text; of PAT see below. */
function hostOf(lab: VmxLab): string {
  const { state } = lab.bench;
  const wide = [S.cr0, S.cr3, S.cr4, S.efer, S.gdtBase, S.idtBase, S.dr7, S.debugCtl]
    .map((field) => state.get(field).toString(16));
  const narrow = [S.gdtLimit, S.idtLimit, S.cpl, S.nonRoot, S.nestedPaging, S.vmxOn, S.vapic]
    .map((field) => state.get32(field).toString(16));
  const segments = [Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS, Seg.TR].map((n) => {
    const { selector, attributes, base, limit } = state.segment(n);
    return [selector, attributes, limit].map((x) => x.toString(16)).join(":") +
      `@${base.toString(16)}`;
  });
  return [...wide, ...narrow, ...segments].join(" ");
}

/** One processor with its tables, and the state that a host has behind any exit. */
class Fuzzer {
  readonly lab: VmxLab = new VmxLab();
  readonly #clean: readonly (readonly [number, Uint8Array])[];
  /** A host behind an exit. */
  readonly host: string;

  constructor() {
    const { lab } = this;
    const { bench } = lab;
    bench.write(At.GUEST, [0xf4]);
    bench.write(0x1_8000, [0xf4]);
    bench.set64(EPT, BigInt(EPT + 0x1000) | 7n);
    bench.set64(EPT + 0x1000, BigInt(EPT + 0x2000) | 7n);
    for (let k = 0; k < 4; k++) bench.set64(EPT + 0x2000 + 8 * k, BigInt(k * 0x20_0000) | 0xb7n);
    bench.set64(PDPTES, BigInt(Place.TABLES + 0x2000) | 1n);
    bench.set32(VAPIC + 0x80, 0x50);
    // MSRs that may be loaded and stored: the TSC, and STAR.
    for (const [k, msr] of [[0, 0x10], [0x100, 0xc000_0081], [0x200, 0xc000_0081]] as const) {
      bench.set32(MSR_LIST + k, msr);
    }
    const result = lab.guest([], { [Vmcs.HOST_PAT]: 0x0007_0406_0007_0406n });
    if (exitText(result) !== "HLT") throw new Error(`the standard guest: ${exitText(result)}`);
    this.host = hostOf(lab);
    const used = [[0, 0x5_0000], [At.VMXON, 0x2_0000], [At.GUEST, 0x3_0000]] as const;
    this.#clean = used.map(([at, bytes]) => [at, bench.read(at, bytes)]);
  }

  /** Memory and the processor as they were made. */
  restore(): void {
    const { bench } = this.lab;
    for (const [at, bytes] of this.#clean) bench.write(at, bytes);
    bench.state.set32(S.events, 0);
    bench.state.set32(S.delivering, 0);
    this.lab.start();
  }
}

/** What leaves no host to look at. */
const LOST = /^(astray|stop|VMX abort)/;

/** What came of an entry, for the tally. */
function kindOf(text: string): string {
  if (/^(VMfail|VMX abort)/.test(text)) return text;
  if (text.startsWith("entry failure")) return text.replace(/ [0-9a-f]+$/, "");
  return LOST.test(text) ? "no exit" : "exit";
}

/** Enters the current VMCS; `"astray"` if a host of another state than the lab's came of it. */
function enter(lab: VmxLab, launch: boolean, finding: () => Finding, otherHost: boolean): string {
  try {
    const text = exitText(lab.enter(launch, 500));
    if (lab.bench.state.get32(S.nonRoot) !== 0) return "stopped in the guest";
    return text.startsWith("stop") && lab.bench.get32(At.VMCS + ABORT) !== 0 ? "VMX abort" : text;
  } catch (error) {
    // A guest that went astray may meet an instruction that is not there; a host may not read its VMCS.
    if (!(error instanceof UnimplementedError) && !otherHost) {
      throw Object.assign(finding(), { cause: error });
    }
    return "astray";
  }
}

/** A VMCS that is being entered, and what it has been made of. */
interface Trial {
  /** All of its fields. */
  readonly fields: ReadonlyMap<number, bigint>;
  /** Those that are not a base's. */
  readonly changed: ReadonlySet<number>;
  readonly launch: boolean;
  readonly where: () => string;
}

/**
 * Enters the current VMCS.
 *
 * @returns What came of it, and whether the host is the lab's own afterwards.
 * @throws {Finding} If the processor and the list judge it differently, or the host is not as it should be.
 */
function tryVmcs(
  fuzzer: Fuzzer,
  { fields, changed, launch, where }: Trial,
  tally: Tally,
): { readonly text: string; readonly own: boolean } {
  const { lab } = fuzzer;
  const { bench } = lab;
  const { state } = bench;
  const view = new VmcsView(fields, {
    capability: (index) => lab.capability(index),
    memory: (address) =>
      address >= 0n && address < 0x80_0000n - 7n ? bench.get64(Number(address)) : undefined,
    address: BigInt(At.VMCS),
    physicalBits: state.get32(S.physicalBits),
  });
  const { refusals, rows } = expected(view);
  const before = REGISTERS.map((n) => state.register(n));
  const hostBefore = hostOf(lab);
  const pat = state.get(S.pat);
  const otherHost = [...changed].some((code) => HOST_FIELDS.has(code));
  const text = enter(lab, launch, () => new Finding(where()), otherHost);
  const refused = /^(VMfail|entry failure, INVALID)/.test(text);
  // A failed entry loads the host: which may be another one, or end in an abort for the MSRs it loads.
  const loads = rows[0]?.group === "guest";
  const lost = loads &&
    (otherHost
      ? LOST.test(text)
      : text === "VMX abort" && view.at(Vmcs.EXIT_MSR_LOAD_COUNT) !== 0n);
  const agrees = refusals.length === 0 ? !refused : lost || refusals.includes(text);
  if (!agrees) {
    const list = rows.map(({ group, rule }) => `${group}: ${rule}`).join("; ") || "nothing";
    throw new Finding(`${where()}\n  the processor: ${text}\n  the list: ${list}`);
  }
  tally.count(kindOf(text));
  if (rows.length === 1) tally.row(ENTRY_CHECKS.indexOf(rows[0]!));
  const hostChanged = [...changed].some((code) =>
    HOST_FIELDS.has(code) || code === Vmcs.EXIT_CONTROLS || LIST_FIELDS.has(code)
  );
  if (text.startsWith("VMfail")) {
    if (hostOf(lab) !== hostBefore) {
      throw new Finding(`${where()}: the host changed\n  ${hostBefore}\n  ${hostOf(lab)}`);
    }
    // RBX is the reader's own.
    REGISTERS.forEach((n, at) => {
      if (n !== 3 && state.register(n) !== before[at]) {
        throw new Finding(`${where()}: register ${n} changed`);
      }
    });
  } else if (!LOST.test(text) && !hostChanged) {
    if (hostOf(lab) !== fuzzer.host) {
      throw new Finding(`${where()}: the host\n  ${fuzzer.host}\n  ${hostOf(lab)}`);
    }
    // An exit that does not load PAT leaves it as the guest had it.
    const loaded = view.exit(ExitControl.LOAD_PAT) ? view.at(Vmcs.HOST_PAT) : pat;
    const kept = view.exit(ExitControl.LOAD_PAT) || refused || !view.entry(EntryControl.LOAD_PAT);
    if (kept && state.get(S.pat) !== loaded) throw new Finding(`${where()}: PAT`);
    if (refused) {
      REGISTERS.forEach((n, at) => {
        if (state.register(n) !== before[at]) {
          throw new Finding(`${where()}: register ${n} changed`);
        }
      });
    }
  }
  return { text, own: text.startsWith("VMfail") || (!LOST.test(text) && !hostChanged) };
}

/** How often a VMCS is entered at most, changed each time. */
const ROUNDS = 3;

/**
 * Enters `cases` VMCSs. One behind whose entry the host is its own is changed and entered again, so that
 * what the processor remembers of its checks is not taken for what it would find now.
 *
 * @throws {Finding} At the first one that the processor and the list judge differently.
 */
export function fuzzVmcs(cases: number, seed: number, tally: Tally): void {
  const random = new Prng(seed, 0);
  const fuzzer = new Fuzzer();
  const { lab } = fuzzer;
  for (let k = 0; k < cases;) {
    const first = k;
    const [name, own] = random.pick(BASES);
    let fields = new Map<number, bigint>();
    for (const [code, value] of Object.entries({ ...standard, ...own })) {
      fields.set(Number(code), BigInt.asUintN(64, BigInt(value)));
    }
    lab.prepare(Object.fromEntries(fields));
    const changed = new Set<number>();
    const changes: string[] = [];
    const where = (): string => `seed ${seed}, case ${first}: ${name}, ${changes.join(", ")}`;
    let launch = true;
    let ran = false;
    for (let round = 0; round < ROUNDS && k < cases; round++) {
      k++;
      const now = new Set<number>();
      for (let n = random.below(4); n >= 0; n--) now.add(mutate(random, fields));
      for (const code of now) {
        changed.add(code);
        changes.push(`${code.toString(16)}h = ${fields.get(code)!.toString(16)}`);
      }
      lab.write(Object.fromEntries([...now].map((code) => [code, fields.get(code)!])));
      const { text, own } = tryVmcs(fuzzer, { fields, changed, launch, where }, tally);
      // What was refused has changed nothing.
      if (text.startsWith("VMfail")) {
        changes.push("entered again");
        continue;
      }
      ran = true;
      if (!own) break;
      const rip = fields.get(Vmcs.GUEST_RIP);
      fields = lab.readAll();
      if (!text.startsWith("entry failure")) {
        // A guest that has done more than to halt may have done anything.
        if (text !== "HLT" || fields.get(Vmcs.GUEST_RIP) !== rip) break;
        launch = false;
      }
      changes.push("run again");
    }
    if (ran) fuzzer.restore();
  }
}
