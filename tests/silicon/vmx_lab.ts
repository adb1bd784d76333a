/**
 * VMX operation on the bench: a host program in machine code that manages VMCSs with VMX instructions alone,
 * so that the silicon is judged without any hypervisor of ours and without a look inside a VMCS.
 *
 * Host and guest share the bench's memory and, unless a test says otherwise, its page tables.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  type CpuModel,
  Cr0,
  Cr4,
  Efer,
  EntryControl,
  ExitControl,
  type FeatureChoice,
  FeatureControl,
  FIRST_VMX_MSR,
  Msr,
  Primary,
  Rflags,
  S,
  Stop,
  Vmcs,
  VMCS_REVISION,
  VmxExit,
} from "../../plugins/cpu/mod.ts";
import { Bench, Place, Sel } from "./bench.ts";
import { code, dword, hex } from "./code.ts";

/** Where the lab keeps things, besides what the bench has. */
export const At = {
  VMXON: 0x10_0000,
  VMCS: 0x10_1000,
  /** A second VMCS, for tests of pointers. */
  OTHER: 0x10_2000,
  /** Fields that the host program writes or reads: encoding, value. */
  LIST: 0x10_3000,
  /** The operand of VMPTRLD and its like. */
  POINTER: 0x10_5000,
  /** The host goes on here behind a VM exit. */
  EXIT: 0x10_6000,
  HOST_STACK: 0x10_8000,
  /** Bitmaps, lists and pages of tests. */
  SCRATCH: 0x11_0000,
  /** The guest's code, alone in its page. */
  GUEST: 0x20_0000,
  /** The guest's data. */
  DATA: 0x21_0000,
  GUEST_STACK: 0x22_0000,
} as const;

/** Controls as small as the capability MSRs allow. */
const PIN = 0x16;
const PRIMARY = 0x0400_6172;
const EXIT = 0x0003_6dfb;
const ENTRY = 0x0000_11fb;

/** Fields that come with APX and with control-flow enforcement. */
const NOT_EVERYWHERE: readonly number[] = [
  Vmcs.EXTENDED_INSTRUCTION_INFO,
  Vmcs.GUEST_S_CET,
  Vmcs.GUEST_SSP,
  Vmcs.GUEST_INTERRUPT_SSP_TABLE,
  Vmcs.HOST_S_CET,
  Vmcs.HOST_SSP,
  Vmcs.HOST_INTERRUPT_SSP_TABLE,
];

/** Names and encodings of the fields that every model has. */
export const VMCS_FIELDS: readonly (readonly [string, number])[] = Object.entries(Vmcs)
  .filter(([, encoding]) => !NOT_EVERYWHERE.includes(encoding));

/** Fields by encoding. */
export type Fields = Readonly<Record<number, bigint | number>>;

const PAGED = 0x8000_0000n | BigInt(Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP);
const DATA_RIGHTS = 0xc093;

function segment(place: number, selector: number, rights: number, limit = 0xffff_ffff): Fields {
  return {
    [Vmcs.GUEST_ES_SELECTOR + 2 * place]: selector,
    [Vmcs.GUEST_ES_LIMIT + 2 * place]: limit,
    [Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * place]: rights,
    [Vmcs.GUEST_ES_BASE + 2 * place]: 0,
  };
}

/** A long-mode guest and host that VMLAUNCH accepts; only HLT and CPUID make the guest exit. */
export function standardFields(): Record<number, bigint | number> {
  const fields: Record<number, bigint | number> = {};
  for (const [, encoding] of VMCS_FIELDS) fields[encoding] = 0;
  return {
    ...fields,
    [Vmcs.PIN_CONTROLS]: PIN,
    [Vmcs.PRIMARY_CONTROLS]: PRIMARY | Primary.HLT,
    [Vmcs.EXIT_CONTROLS]: EXIT | ExitControl.HOST_64BIT | ExitControl.SAVE_EFER |
      ExitControl.LOAD_EFER,
    [Vmcs.ENTRY_CONTROLS]: ENTRY | EntryControl.IA32E_GUEST | EntryControl.LOAD_EFER,
    [Vmcs.LINK_POINTER]: -1n,
    [Vmcs.TSC_MULTIPLIER]: 1n << 48n,
    [Vmcs.VPID]: 1,
    [Vmcs.HOST_CR0]: PAGED,
    [Vmcs.HOST_CR3]: BigInt(Place.TABLES),
    [Vmcs.HOST_CR4]: BigInt(Cr4.PAE | Cr4.VMXE),
    [Vmcs.HOST_EFER]: BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE),
    [Vmcs.HOST_CS_SELECTOR]: Sel.CODE64,
    [Vmcs.HOST_SS_SELECTOR]: Sel.DATA,
    [Vmcs.HOST_DS_SELECTOR]: Sel.DATA,
    [Vmcs.HOST_ES_SELECTOR]: Sel.DATA,
    [Vmcs.HOST_FS_SELECTOR]: Sel.DATA,
    [Vmcs.HOST_GS_SELECTOR]: Sel.DATA,
    [Vmcs.HOST_TR_SELECTOR]: 0xf8,
    [Vmcs.HOST_TR_BASE]: Place.TSS,
    [Vmcs.HOST_GDTR_BASE]: Place.GDT,
    [Vmcs.HOST_IDTR_BASE]: Place.IDT,
    [Vmcs.HOST_RSP]: At.HOST_STACK,
    [Vmcs.HOST_RIP]: At.EXIT,
    ...segment(0, Sel.DATA, DATA_RIGHTS),
    ...segment(1, Sel.CODE64, 0xa09b),
    ...segment(2, Sel.DATA, DATA_RIGHTS),
    ...segment(3, Sel.DATA, DATA_RIGHTS),
    ...segment(4, Sel.DATA, DATA_RIGHTS),
    ...segment(5, Sel.DATA, DATA_RIGHTS),
    ...segment(6, 0, 0x1_0000, 0),
    ...segment(7, 0xf8, 0x8b, 0x67),
    [Vmcs.GUEST_TR_BASE]: Place.TSS,
    [Vmcs.GUEST_GDTR_BASE]: Place.GDT,
    [Vmcs.GUEST_GDTR_LIMIT]: 0xfff,
    [Vmcs.GUEST_IDTR_BASE]: Place.IDT,
    [Vmcs.GUEST_IDTR_LIMIT]: 0,
    [Vmcs.GUEST_CR0]: PAGED,
    [Vmcs.GUEST_CR3]: BigInt(Place.TABLES),
    [Vmcs.GUEST_CR4]: BigInt(Cr4.PAE | Cr4.VMXE),
    [Vmcs.GUEST_EFER]: BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE),
    [Vmcs.GUEST_DR7]: 0x400,
    [Vmcs.GUEST_RSP]: At.GUEST_STACK,
    [Vmcs.GUEST_RIP]: At.GUEST,
    [Vmcs.GUEST_RFLAGS]: 2,
  };
}

/** A guest in 32-bit protected mode without paging, which only an unrestricted guest can be. */
export const UNPAGED: Fields = {
  ...segment(1, Sel.CODE32, 0xc09b),
  [Vmcs.GUEST_CR0]: Cr0.PE | Cr0.NE | Cr0.ET,
  [Vmcs.GUEST_CR4]: Cr4.VMXE,
  [Vmcs.GUEST_EFER]: 0,
  [Vmcs.ENTRY_CONTROLS]: ENTRY | EntryControl.LOAD_EFER,
};

const HLT = 0xf4;

/** What came of a VM entry. */
export interface Entry {
  /** `"exit"`, `"VMfailInvalid"`, or `"VMfail 7"` with the error number. */
  readonly result: string;
  /** The exit reason; −1 without an exit. */
  readonly reason: number;
  /** The exit qualification. */
  readonly qualification: bigint;
}

/** One processor in VMX operation with one VMCS. */
export class VmxLab {
  readonly bench: Bench;

  constructor(model: CpuModel = "sapphire-rapids", features?: FeatureChoice) {
    this.bench = new Bench({ model, ...(features === undefined ? {} : { features }) });
    this.bench.write(At.EXIT, [HLT]);
    this.bench.set32(At.VMXON, VMCS_REVISION);
    this.bench.set32(At.VMCS, VMCS_REVISION);
    this.bench.set32(At.OTHER, VMCS_REVISION);
    this.start();
  }

  /** A long-mode host with CR4.VMXE, allowed to use VMX, that has not executed VMXON. */
  cold(): void {
    this.bench.long();
    const { processor, state } = this.bench;
    if ((processor.readMsr(Msr.FEATURE_CONTROL)! & 1n) === 0n) {
      const wanted = BigInt(FeatureControl.LOCK | FeatureControl.VMXON);
      assertEquals(processor.writeMsr(Msr.FEATURE_CONTROL, wanted), true);
    }
    state.set(S.cr4, BigInt(Cr4.PAE | Cr4.VMXE));
    processor.refresh();
  }

  /** The host in VMX operation with no current VMCS. */
  start(): void {
    this.cold();
    assertEquals(this.pointer("f3 0f c7 33", At.VMXON), "VMsucceed");
  }

  /** The host in VMX operation in another mode or privilege, which `mode` sets (as after RESET). */
  elsewhere(mode: () => void): void {
    this.start();
    mode();
    this.bench.state.set32(S.vmxOn, 1);
    this.bench.state.set(S.cr4, BigInt(Cr4.PAE | Cr4.VMXE));
    this.bench.processor.refresh();
  }

  /** Executes host code, which a HLT ends; the flags it leaves as VMX instructions name them. */
  run(bytes: readonly number[]): string {
    const { bench } = this;
    const { state, processor } = bench;
    state.set(S.rip, BigInt(Place.CODE));
    bench.write(Place.CODE, [...bytes, HLT]);
    const { stop, events } = bench.run(1_000_000);
    if (stop !== Stop.HALT) {
      const [first] = events;
      return first === undefined ? `stop ${stop}` : `#${first.vector}`;
    }
    processor.wake();
    return this.#verdict();
  }

  /** RFLAGS, left as they are. */
  #flags(): number {
    const { flags } = this.bench;
    this.bench.flags = flags;
    return flags;
  }

  #verdict(): string {
    const flags = this.#flags();
    const known = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF;
    switch (flags & known) {
      case 0:
        return "VMsucceed";
      case Rflags.CF:
        return "VMfailInvalid";
      case Rflags.ZF:
        return `VMfail ${this.read(Vmcs.INSTRUCTION_ERROR)}`;
      default:
        return `flags ${flags.toString(16)}`;
    }
  }

  /** Executes an instruction whose operand is [rbx], which holds `value`. */
  pointer(instruction: string, value: number | bigint): string {
    this.bench.set64(At.POINTER, BigInt.asUintN(64, BigInt(value)));
    this.bench.state.setRegister(3, BigInt(At.POINTER));
    return this.run(hex(instruction));
  }

  vmclear(pointer: number | bigint): string {
    return this.pointer("66 0f c7 33", pointer);
  }

  vmptrld(pointer: number | bigint): string {
    return this.pointer("0f c7 33", pointer);
  }

  /** VMWRITE; what it came to. */
  vmwrite(encoding: number | bigint, value: bigint | number): string {
    const { state } = this.bench;
    state.setRegister(0, BigInt.asUintN(64, BigInt(encoding)));
    state.setRegister(3, BigInt.asUintN(64, BigInt(value)));
    return this.run(hex("0f 79 c3"));
  }

  /** VMREAD of a field that exists. */
  read(encoding: number): bigint {
    const { state, bench } = { state: this.bench.state, bench: this.bench };
    const flags = this.#flags();
    state.setRegister(0, BigInt(encoding));
    state.set(S.rip, BigInt(Place.CODE));
    // vmread rbx, rax
    bench.write(Place.CODE, [...hex("0f 78 c3"), HLT]);
    assertEquals(bench.run(10).stop, Stop.HALT);
    bench.processor.wake();
    assertEquals(this.#flags() & (Rflags.CF | Rflags.ZF), 0, `VMREAD of ${encoding.toString(16)}h`);
    bench.flags = flags;
    return state.register(3);
  }

  /** Writes fields with one program. */
  write(fields: Fields): void {
    const { bench } = this;
    const entries = Object.entries(fields);
    for (const [k, [encoding, value]] of entries.entries()) {
      bench.set64(At.LIST + 16 * k, BigInt(encoding));
      bench.set64(At.LIST + 16 * k + 8, BigInt.asUintN(64, BigInt(value)));
    }
    bench.state.setRegister(6, BigInt(At.LIST));
    bench.state.setRegister(1, BigInt(entries.length));
    // mov rax,[rsi]; mov rbx,[rsi+8]; vmwrite rax,rbx; jbe out; add rsi,16; dec rcx; jnz; xor eax,eax
    const verdict = this.run(
      hex("48 8b 06  48 8b 5e 08  0f 79 c3  76 0b  48 83 c6 10  48 ff c9  75 eb  84 f6"),
    );
    const at = (Number(bench.state.register(6)) - At.LIST) / 16;
    assertEquals(at, entries.length, `${verdict} at ${entries[at]?.[0]}`);
  }

  /** Reads all fields there are with one program. */
  readAll(): Map<number, bigint> {
    const { bench } = this;
    const flags = this.#flags();
    for (const [k, [, encoding]] of VMCS_FIELDS.entries()) {
      bench.set64(At.LIST + 16 * k, BigInt(encoding));
    }
    bench.state.setRegister(6, BigInt(At.LIST));
    bench.state.setRegister(1, BigInt(VMCS_FIELDS.length));
    // mov rax,[rsi]; vmread [rsi+8],rax; jbe out; add rsi,16; dec rcx; jnz
    this.run(hex("48 8b 06  0f 78 46 08  76 09  48 83 c6 10  48 ff c9  75 ee"));
    assertEquals(bench.state.register(1), 0n, "VMREAD of all fields");
    bench.flags = flags;
    return new Map(
      VMCS_FIELDS.map(([, encoding], k) => [encoding, bench.get64(At.LIST + 16 * k + 8)]),
    );
  }

  /** A clear VMCS, current, with the standard fields and `fields` in it. */
  prepare(fields: Fields = {}): void {
    assertEquals(this.vmclear(At.VMCS), "VMsucceed");
    assertEquals(this.vmptrld(At.VMCS), "VMsucceed");
    this.write({ ...standardFields(), ...fields });
  }

  /** VMLAUNCH or VMRESUME of the current VMCS. */
  enter(launch = true, budget = 100_000): Entry {
    const { bench } = this;
    const { state, processor } = bench;
    bench.write(Place.CODE, [...hex(launch ? "0f 01 c2" : "0f 01 c3"), HLT]);
    state.set(S.rip, BigInt(Place.CODE));
    state.setRegister(4, BigInt(At.HOST_STACK));
    const { stop } = bench.run(budget);
    if (stop !== Stop.HALT) return { result: `stop ${stop}`, reason: -1, qualification: 0n };
    const rip = Number(state.rip);
    processor.wake();
    if (rip !== At.EXIT + 1) {
      return { result: this.#verdict(), reason: -1, qualification: 0n };
    }
    const saved = Array.from({ length: 16 }, (_, n) => state.register(n));
    const reason = Number(this.read(Vmcs.EXIT_REASON));
    const qualification = this.read(Vmcs.EXIT_QUALIFICATION);
    for (const [n, value] of saved.entries()) state.setRegister(n, value);
    return { result: "exit", reason, qualification };
  }

  /** Puts `bytes` where the guest starts, behind them a HLT; launches it with `fields`. */
  guest(bytes: readonly number[] | string, fields: Fields = {}): Entry {
    this.bench.write(At.GUEST, [...code(bytes), HLT]);
    this.prepare(fields);
    return this.enter();
  }

  /** The capability MSR at 480h + `k`. */
  capability(k: number): bigint {
    return this.bench.processor.readMsr(FIRST_VMX_MSR + k)!;
  }
}

/** Text of an exit: its basic reason by name, and its qualification if it has one. */
export function exitText({ result, reason, qualification }: Entry): string {
  if (result !== "exit") return result;
  const name = Object.entries(VmxExit).find(([, number]) => number === (reason & 0xffff))?.[0];
  const failed = (reason & 0x8000_0000) !== 0 ? "entry failure, " : "";
  return `${failed}${name ?? reason}${
    qualification === 0n ? "" : ` ${qualification.toString(16)}`
  }`;
}

/** Little-endian bytes of a 32-bit address, for code. */
export { dword };
