/**
 * A VMCS as the checks of VM entries see it, and what the checks have in common.
 *
 * @module
 */
import {
  Cr0,
  Efer,
  EntryControl,
  Primary,
  Rflags,
  Secondary,
  Vmcs,
} from "../../plugins/cpu/mod.ts";

/** A VMCS with what the checks look at besides. */
export class VmcsView {
  readonly #fields: ReadonlyMap<number, bigint>;
  /** The capability MSR 480h + `k`. */
  readonly capability: (k: number) => bigint;
  /** 64 bits of physical memory; `undefined` where there is none. */
  readonly memory: (address: bigint) => bigint | undefined;
  /** Physical address of the VMCS itself. */
  readonly address: bigint;
  /** MAXPHYADDR. */
  readonly physicalBits: bigint;

  constructor(
    fields: ReadonlyMap<number, bigint>,
    machine: {
      readonly capability: (k: number) => bigint;
      readonly memory: (address: bigint) => bigint | undefined;
      readonly address: bigint;
      readonly physicalBits: number;
    },
  ) {
    this.#fields = fields;
    this.capability = machine.capability;
    this.memory = machine.memory;
    this.address = machine.address;
    this.physicalBits = BigInt(machine.physicalBits);
  }

  /** A field. */
  at(encoding: number): bigint {
    return this.#fields.get(encoding) ?? 0n;
  }

  /** Whether any of `bits` is set in a field. */
  has(encoding: number, bits: number | bigint): boolean {
    return (this.at(encoding) & (typeof bits === "bigint" ? bits : BigInt(bits >>> 0))) !== 0n;
  }

  /** Pin-based control. */
  pin(bit: number): boolean {
    return this.has(Vmcs.PIN_CONTROLS, bit);
  }

  /** Primary processor-based control. */
  primary(bit: number): boolean {
    return this.has(Vmcs.PRIMARY_CONTROLS, bit);
  }

  /** Secondary control: 0 unless they are activated. */
  secondary(bit: number): boolean {
    return this.primary(Primary.SECONDARY) && this.has(Vmcs.SECONDARY_CONTROLS, bit);
  }

  /** Tertiary control: 0 unless they are activated. */
  tertiary(bit: number): boolean {
    return this.primary(Primary.TERTIARY) && this.has(Vmcs.TERTIARY_CONTROLS, bit);
  }

  /** VM-exit control. */
  exit(bit: number): boolean {
    return this.has(Vmcs.EXIT_CONTROLS, bit);
  }

  /** VM-entry control. */
  entry(bit: number): boolean {
    return this.has(Vmcs.ENTRY_CONTROLS, bit);
  }

  /** Whether the 32-bit controls have a setting that capability MSR 480h + `k` does not allow. */
  refused(encoding: number, k: number): boolean {
    const value = this.at(encoding);
    const capability = this.capability(k);
    const must = capability & 0xffff_ffffn;
    return (value & must) !== must || (value & ~(capability >> 32n)) !== 0n;
  }

  /** Whether an address is not aligned to `bytes` or beyond the physical address space. */
  bad(address: bigint, bytes: bigint): boolean {
    return address % bytes !== 0n || address >> this.physicalBits !== 0n;
  }

  /** The same of the address of a page in a field. */
  badPage(encoding: number): boolean {
    return this.bad(this.at(encoding), 0x1000n);
  }

  /** CR0.PE of the guest. */
  get protectedGuest(): boolean {
    return this.has(Vmcs.GUEST_CR0, Cr0.PE);
  }

  /** A guest in IA-32e mode. */
  get longGuest(): boolean {
    return this.entry(EntryControl.IA32E_GUEST);
  }

  /** A guest in virtual-8086 mode. */
  get virtualGuest(): boolean {
    return this.has(Vmcs.GUEST_RFLAGS, Rflags.VM);
  }

  /** Unrestricted guest. */
  get unrestricted(): boolean {
    return this.secondary(Secondary.UNRESTRICTED_GUEST);
  }

  /** The event to be injected, where there is one. */
  get event(): { readonly type: number; readonly vector: number } | undefined {
    const info = Number(this.at(Vmcs.ENTRY_INTERRUPTION_INFO));
    return (info & 0x8000_0000) === 0 ? undefined : { type: (info >> 8) & 7, vector: info & 0xff };
  }

  /** Blocking by STI, by MOV SS, by NMI … */
  blocked(bit: number): boolean {
    return this.has(Vmcs.GUEST_INTERRUPTIBILITY, bit);
  }

  /** The activity state. */
  get activity(): number {
    return Number(this.at(Vmcs.GUEST_ACTIVITY));
  }
}

/** What of an entry fails: the controls, the host state, the guest state. */
export type CheckGroup = "control" | "host" | "guest";

/** One row of the list. */
export interface EntryCheck {
  readonly group: CheckGroup;
  /** What it asks for. */
  readonly rule: string;
  /** Whether a VMCS breaks it. */
  readonly fails: (v: VmcsView) => boolean;
  /** Exit qualification of the failed entry, where it is not 0. */
  readonly qualification?: number;
}

/** Whether an address is canonical with the 57 bits that Sapphire Rapids has. */
export const canonical = (address: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(57, address)) === address;

/** A check on the controls. */
export const control = (rule: string, fails: (v: VmcsView) => boolean): EntryCheck => ({
  group: "control",
  rule,
  fails,
});
/** A check on the host state. */
export const host = (rule: string, fails: (v: VmcsView) => boolean): EntryCheck => ({
  group: "host",
  rule,
  fails,
});
/** A check on the guest state; `qualification` is that of the failed entry. */
export const guest = (
  rule: string,
  fails: (v: VmcsView) => boolean,
  qualification = 0,
): EntryCheck => ({
  group: "guest",
  rule,
  fails,
  qualification,
});

/** Whether CR0 (`k` 6) or CR4 (8) has a bit that may not be as it is, apart from those that are `free`. */
export function badFixed(v: VmcsView, encoding: number, k: number, free = 0n): boolean {
  const value = v.at(encoding);
  const ones = v.capability(k) & ~free;
  return (value & ones) !== ones || (value & BigInt.asUintN(64, ~v.capability(k + 1))) !== 0n;
}

/** Whether a PAT has a type that is none. */
export const badPat = (pat: bigint): boolean =>
  Array.from({ length: 8 }, (_, k) => Number((pat >> BigInt(8 * k)) & 0xffn)).some((type) =>
    type > 7 || type === 2 || type === 3
  );

/** EFER's bits. */
export const EFER_BITS: bigint = BigInt(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE);
