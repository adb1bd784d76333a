/**
 * KVM's paravirtual IPIs: one hypercall sends an interrupt to up to 128 vCPUs, where each would take an
 * exit of its own (Linux, Documentation/virt/kvm/x86/hypercalls.rst and cpuid.rst).
 *
 * The plugin is found by the guest as KVM is: CPUID 4000_0000h gives the signature and 4000_0001h EAX the
 * feature, bit 11. Hypercall 10 takes bitmaps of APIC IDs in RBX and RCX, the lowest APIC ID of the first in
 * RDX, and what would be written to the ICR in RSI. It answers how many local APICs there were to send to.
 *
 * Limits: of KVM's paravirtual features this is the only one; on the bare processor there are no hypercalls.
 *
 * @example
 * ```ts
 * import { pvIpi } from "@trapline/trapline/pvipi";
 *
 * const plugin = pvIpi(); // beside svm or vmx, and lapic
 * console.assert(plugin.name === "pvipi");
 * ```
 *
 * @module
 */
import { cpuidHook, Gpr, hypercallHook, type Plugin, type Vcpu } from "../../core/mod.ts";
import { type ApicBus, ApicMessage, lapicSlot, Shorthand } from "../lapic/mod.ts";

/** Hypercalls that send IPIs: the number in EAX. */
export const KVM_HC_SEND_IPI = 10;
/** CPUID 4000_0001h EAX: bit 11. */
export const KVM_FEATURE_PV_SEND_IPI = 0x800;

/** First of KVM's leaves: the signature and the last leaf; then the features. */
const SIGNATURE_LEAF = 0x4000_0000;
const FEATURE_LEAF = 0x4000_0001;
/** "KVMKVMKVM" with three zeros. */
const SIGNATURE = { ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d } as const;

/** KVM_EINVAL, as hypercalls answer it. */
const INVALID = -22;
/** Bits of the ICR that may not be set: a logical destination, and shorthands. */
const REFUSED = 0xc_0800;

/** Paravirtual IPIs. Needs `lapic`, and a hypervisor. */
export function pvIpi(): Plugin {
  return {
    name: "pvipi",
    version: "0.1.0",
    description: "KVM's hypercall that sends one IPI to many",
    requires: ["lapic", lapicSlot],
    setup(ctx) {
      const bus = ctx.use(lapicSlot);
      const message = new ApicMessage();
      ctx.on(cpuidHook, SIGNATURE_LEAF, (result) => {
        result.eax = Math.max(result.eax, FEATURE_LEAF);
        return Object.assign(result, SIGNATURE);
      });
      ctx.on(cpuidHook, FEATURE_LEAF, (result) => {
        result.eax |= KVM_FEATURE_PV_SEND_IPI;
        return result;
      });
      ctx.on(hypercallHook, KVM_HC_SEND_IPI, (vcpu) => {
        const wide = vcpu.vm.vendor.current.is64Bit(vcpu);
        const count = send(vcpu, bus.current, message, wide);
        vcpu.regs.setPair(Gpr.RAX, count, wide ? count >> 31 : 0);
        return true;
      });
    },
  };
}

/** Sends the message; how many there were to send it to. A bitmap has as many bits as a register. */
function send(vcpu: Vcpu, bus: ApicBus, message: ApicMessage, wide: boolean): number {
  const { regs } = vcpu;
  const icr = regs.lo(Gpr.RSI);
  if ((icr & REFUSED) !== 0) return INVALID;
  message.setIcr(icr, 0, true);
  message.shorthand = Shorthand.NONE;
  const lowest = regs.lo(Gpr.RDX) >>> 0;
  const high = (lowest + (wide ? 64 : 32)) >>> 0;
  return sendCluster(bus, message, lowest, regs.lo(Gpr.RBX), wide ? regs.hi(Gpr.RBX) : 0) +
    sendCluster(bus, message, high, regs.lo(Gpr.RCX), wide ? regs.hi(Gpr.RCX) : 0);
}

/** Sends it to the APIC IDs from `lowest` on whose bits are set; APIC IDs do not wrap around in a bitmap. */
function sendCluster(
  bus: ApicBus,
  message: ApicMessage,
  lowest: number,
  low: number,
  high: number,
): number {
  let count = 0;
  for (let rest = low; rest !== 0; rest &= rest - 1) {
    if (bus.find(lowest + 31 - Math.clz32(rest & -rest))?.receive(message)) count++;
  }
  for (let rest = high; rest !== 0; rest &= rest - 1) {
    if (bus.find(lowest + 63 - Math.clz32(rest & -rest))?.receive(message)) count++;
  }
  return count;
}
