/**
 * Accesses to device memory by plain moves, carried out without a processor to carry them out on.
 *
 * The processor has done all of the instruction but the access when it exits: permissions, limits,
 * alignment and translation have been looked at, and the exit tells the guest physical address. What is left
 * is to find out which register or constant goes there or comes from there, and to ask the device.
 *
 * @module
 */
import { Gpr, type HostMemory, type MmioBus, type Vcpu, type Vm } from "../../../core/mod.ts";
import { Decoder } from "../decode/decoder.ts";
import type { IsaFeatureName } from "../isa_features.ts";
import { Rflags } from "../microcode/registers.ts";
import { Seg } from "../state/cpu_state.ts";
import { CodeBytes, type CodePlace } from "./code_bytes.ts";
import { Move } from "./move.ts";

/** What is asked about a guest at an exit. */
export interface MovingGuest extends CodePlace {
  /** The vCPU. Its registers are current. */
  readonly vcpu: Vcpu;
  /** Size of its code. */
  readonly codeBits: 16 | 32 | 64;
  /** DR7, bits 31:0. */
  readonly dr7: number;
  /** Bits 31:0 of the base of segment register `segment`, by its number in instructions. */
  segmentBase(segment: number): number;
}

/** RFLAGS with which more follows from an instruction than what it does itself. */
const SPECIAL = Rflags.TF | Rflags.AC;
/** DR7: breakpoints 0–3 are enabled. */
const BREAKPOINTS = 0xff;
/** Moves are kept by RIP. */
const KEPT = 256;
const PAGE = 0x1000;

/** Carries moves out for all vCPUs of a VM. */
export class DeviceMoves {
  readonly #bus: MmioBus;
  readonly #code: CodeBytes;
  readonly #decoder: Decoder;
  readonly #kept: readonly Move[] = Array.from({ length: KEPT }, () => new Move());

  /** For processors with the features `isa`. */
  constructor(vm: Vm, memory: HostMemory, isa: ReadonlySet<IsaFeatureName>) {
    this.#bus = vm.mmio;
    this.#code = new CodeBytes(vm, memory);
    this.#decoder = new Decoder(isa);
  }

  /**
   * Carries out the instruction at the guest's RIP, whose access to `gpa` has made it exit, and moves RIP past
   * it. An interrupt shadow is the caller's to end.
   *
   * @returns Whether it has. If not, because it is no plain move or something else would follow from it,
   *   nothing has happened.
   */
  carryOut(guest: MovingGuest, gpa: number): boolean {
    const { vcpu } = guest;
    const { regs, events } = vcpu;
    if ((regs.lo(Gpr.RFLAGS) & SPECIAL) !== 0 || (guest.dr7 & BREAKPOINTS) !== 0) return false;
    // The access may be one of an event's delivery.
    if (events.needsReinjection) return false;
    const move = this.#find(guest);
    if (move === undefined) return false;
    // Of an access that goes beyond a page, only a part may be the device's.
    const offset = this.#offset(guest, move);
    if (offset !== (gpa & (PAGE - 1)) || offset + move.size > PAGE) return false;
    if (move.write) this.#store(vcpu, move, gpa);
    else this.#load(vcpu, move, gpa);
    const next = (regs.lo(Gpr.RIP) >>> 0) + move.length;
    const carry = move.code === 64 && next > 0xffff_ffff ? 1 : 0;
    regs.setPair(Gpr.RIP, next | 0, regs.hi(Gpr.RIP) + carry);
    // Some processors save it set where the instruction is to be begun anew; behind it, it is over.
    regs.setPair(Gpr.RFLAGS, regs.lo(Gpr.RFLAGS) & ~Rflags.RF, regs.hi(Gpr.RFLAGS));
    vcpu.instructions++;
    return true;
  }

  /** The move at the guest's RIP. */
  #find(guest: MovingGuest): Move | undefined {
    const { exit, regs } = guest.vcpu;
    const code = guest.codeBits;
    let { bytes, byteCount: count } = exit;
    if (count === 0) {
      bytes = this.#code.bytes;
      count = this.#code.fetch(guest);
    }
    const rip = regs.lo(Gpr.RIP);
    const move = this.#kept[(rip ^ (rip >>> 8)) & (KEPT - 1)]!;
    if (move.is(bytes, count, code, rip)) return move;
    return move.decode(this.#decoder, bytes, count, code, rip) ? move : undefined;
  }

  /** Bits 11:0 of the linear address. */
  #offset(guest: MovingGuest, move: Move): number {
    const { regs } = guest.vcpu;
    const base = move.base < 0 ? 0 : regs.lo(move.base);
    const index = move.index < 0 ? 0 : regs.lo(move.index) << move.scale;
    const flat = move.code === 64 && move.segment < Seg.FS;
    const segment = flat ? 0 : guest.segmentBase(move.segment);
    return (base + index + move.displacement + segment) & (PAGE - 1);
  }

  #store(vcpu: Vcpu, move: Move, gpa: number): void {
    const { regs } = vcpu;
    const { register, size } = move;
    const whole = register < 0 ? move.low : regs.lo(register);
    const low = move.second ? whole >>> 8 : whole;
    const high = register < 0 ? move.high : regs.hi(register);
    const mask = size >= 4 ? 0xffff_ffff : (1 << (8 * size)) - 1;
    this.#bus.write(gpa, size, (low & mask) >>> 0, size === 8 ? high >>> 0 : 0, vcpu);
  }

  #load(vcpu: Vcpu, move: Move, gpa: number): void {
    const { regs } = vcpu;
    const { register, size } = move;
    let low = this.#bus.read(gpa, size, vcpu);
    let high = size === 8 ? this.#bus.high : 0;
    if (move.signed) {
      const unused = size >= 4 ? 0 : 32 - 8 * size;
      low = (low << unused) >> unused;
      high = low >> 31;
    }
    if (move.bits === 64) regs.setPair(register, low, high);
    else if (move.bits === 32) regs.setU32(register, low);
    else if (move.bits === 16) regs.setU16(register, low);
    else if (!move.second) regs.setU8(register, low);
    else regs.setU16(register, (regs.lo(register) & 0xff) | ((low & 0xff) << 8));
  }
}
