/**
 * Intel APX for guests: R16–R31 and XCR0 switched around entries, and the feature in CPUID.
 *
 * No processor switches R16–R31 between a hypervisor and its guests, so the hypervisor must, and it must
 * do so before a fastpath handler reads one of them: RDMSR and WRMSRNS with an immediate index may have
 * any register as operand. How that is done was sketched on the list in April 2026 and argued about;
 * {@linkcode ApxOptions.variant} chooses between the ways. Without this plugin XCR0 is switched and
 * nothing else, and values of one vCPU reach the next one that its processor runs.
 *
 * Where the guest's registers are kept, `Vcpu.regs`, is the one truth: the instruction emulator and
 * `Vendor.getXsave` (component 19) take R16–R31 from there.
 *
 * Limits: a host that uses APX itself is modelled by what its code would do to the registers
 * ({@linkcode ApxOptions.host}).
 *
 * @module
 */
import {
  cpuidHook,
  type ExitAction,
  ExitAction as Action,
  exitHook,
  ExitReason,
  type Plugin,
  type Vcpu,
} from "../../core/mod.ts";
import {
  extendedStateSlot,
  type GuestExtendedState,
  processorsSlot,
  Vector,
  Xcr0,
} from "../cpu/mod.ts";
import { type HostApx, HostKernel } from "./host_kernel.ts";
import { APX_SWITCHES, type ApxSwitchName } from "./switches.ts";

export type { HostApx } from "./host_kernel.ts";
export type { ApxSwitchName } from "./switches.ts";

/** CPUID (7,1) EDX: the architectural bit of APX_F, and the one that the posted sketch has. */
export const ApxCpuidBit = { ARCHITECTURAL: 21, POSTED: 7 } as const;

/** Options of {@linkcode apx}. */
export interface ApxOptions {
  /** How R16–R31 are switched; `"reviewed"` if not given. */
  readonly variant?: ApxSwitchName;
  /**
   * Bit of CPUID (7,1) EDX that stands for APX in this hypervisor: it is shown to guests, and by it the
   * hypervisor knows whether a guest has APX. 21 if not given; the posted sketch has 7.
   */
  readonly cpuidBit?: number;
  /** Whether guests have APX; true if not given. */
  readonly expose?: boolean;
  /**
   * What the host itself has of APX; `"off"` if not given. With `"user"` its XCR0 has APX; with `"kernel"`
   * host code between the switch and the entry finds and leaves values in R16–R31 besides.
   */
  readonly host?: HostApx;
}

/**
 * Gives guests APX. The processors must have the feature `apx`.
 *
 * The run ends with an error if the host's code meets #UD, or finds its own R16–R31 changed: so with
 * some variants if the kernel of the host uses APX.
 *
 * @throws {Error} In `setup`, if the processors do not have APX.
 */
export function apx(options: ApxOptions = {}): Plugin {
  const {
    variant = "reviewed",
    cpuidBit = ApxCpuidBit.ARCHITECTURAL,
    expose = true,
    host = "off",
  } = options;
  const shown = (1 << cpuidBit) >>> 0;
  const architectural = 1 << ApxCpuidBit.ARCHITECTURAL;
  return {
    name: "apx",
    version: "0.1.0",
    description: "R16–R31 of APX for guests",
    requires: ["cpu", processorsSlot],
    provides: [extendedStateSlot],
    setup(ctx) {
      if (!ctx.use(processorsSlot).current.isa.has("apx")) {
        throw new Error("the processors do not have APX: give the cpu plugin the feature apx");
      }
      const hasApx = (vcpu: Vcpu): boolean => (ctx.vm.cpuid(7, 1, vcpu).edx & shown) !== 0;
      // CPUID does not change once a vCPU runs.
      const known: (boolean | undefined)[] = [];
      const parts = {
        kernel: new HostKernel(host),
        guestHasApx: ({ vcpu }: GuestExtendedState) => known[vcpu.index] ??= hasApx(vcpu),
      };
      ctx.provide(extendedStateSlot, APX_SWITCHES[variant](parts));
      ctx.on(cpuidHook, 7, (result) => {
        if (result.subleaf !== 1) return result;
        const there = (result.edx & architectural) !== 0 && expose;
        result.edx = (result.edx & ~architectural & ~shown) >>> 0;
        if (there) result.edx = (result.edx | shown) >>> 0;
        return result;
      });
      ctx.on(cpuidHook, 0xd, (result) => {
        if (expose) return result;
        if (result.subleaf === 0) {
          result.eax = (result.eax & ~Xcr0.APX) >>> 0;
          result.ecx = result.ebx;
        } else if (result.subleaf === APX_COMPONENT) result.eax = result.ebx = 0;
        return result;
      });
      ctx.on(cpuidHook, 0x29, (result) => {
        if (!expose) result.ebx = 0;
        return result;
      });
      // What the guest does not have, its XCR0 cannot have either.
      ctx.on(exitHook, ExitReason.XSETBV, (vcpu): ExitAction | undefined => {
        if ((vcpu.exit.lo & Xcr0.APX) === 0 || hasApx(vcpu)) return undefined;
        vcpu.fault(Vector.GP, 0);
        return Action.RESUME;
      });
    },
  };
}

/** XCR0[19], and the subleaf of CPUID 0Dh. */
const APX_COMPONENT = 19;
