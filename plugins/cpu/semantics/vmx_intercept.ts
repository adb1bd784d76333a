/**
 * Instructions in VMX non-root operation: which control makes each exit, beside what it is under SVM, and
 * what the exit tells (SDM vol. 3, 26.1 and 28.2).
 *
 * @module
 */
import { MicroOp } from "../engine/block_layout.ts";
import { Vector } from "../microcode/raise.ts";
import { segmentPointer } from "../memory/segmentation.ts";
import { S, Seg, SegmentField } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { Primary, Secondary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { readField32, Vmcs, writeField, writeField32 } from "../vmx/fields.ts";
import { type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import { type Instruction, Reg } from "./instruction.ts";

/** When an instruction exits, and with which reason. */
interface Row {
  /** Basic exit reason. */
  readonly reason: number;
  /** Bit of the primary controls; of no control, the exit is unconditional. */
  readonly primary?: number;
  /** Bit of the secondary controls. */
  readonly secondary?: number;
  /** Bit of the secondary controls without which the instruction is undefined. */
  readonly enable?: number;
  /** The exit reports the operand: bits 29:28 of the instruction information say which instruction. */
  readonly identity?: number;
}

/** VMX by the #VMEXIT code that the same instruction has under SVM. */
const ROWS: Readonly<Record<number, Row>> = {
  [SvmExit.CPUID]: { reason: VmxExit.CPUID },
  [SvmExit.HLT]: { reason: VmxExit.HLT, primary: Primary.HLT },
  [SvmExit.INVD]: { reason: VmxExit.INVD },
  [SvmExit.WBINVD]: { reason: VmxExit.WBINVD, secondary: Secondary.WBINVD },
  [SvmExit.XSETBV]: { reason: VmxExit.XSETBV },
  [SvmExit.RDPMC]: { reason: VmxExit.RDPMC, primary: Primary.RDPMC },
  [SvmExit.RDTSC]: { reason: VmxExit.RDTSC, primary: Primary.RDTSC },
  [SvmExit.RDTSCP]: {
    reason: VmxExit.RDTSCP,
    primary: Primary.RDTSC,
    enable: Secondary.RDTSCP,
  },
  [SvmExit.GDTR_READ]: tables(VmxExit.GDTR_IDTR, 0),
  [SvmExit.IDTR_READ]: tables(VmxExit.GDTR_IDTR, 1),
  [SvmExit.GDTR_WRITE]: tables(VmxExit.GDTR_IDTR, 2),
  [SvmExit.IDTR_WRITE]: tables(VmxExit.GDTR_IDTR, 3),
  [SvmExit.LDTR_READ]: tables(VmxExit.LDTR_TR, 0),
  [SvmExit.TR_READ]: tables(VmxExit.LDTR_TR, 1),
  [SvmExit.LDTR_WRITE]: tables(VmxExit.LDTR_TR, 2),
  [SvmExit.TR_WRITE]: tables(VmxExit.LDTR_TR, 3),
};

function tables(reason: number, identity: number): Row {
  return { reason, secondary: Secondary.DESCRIPTOR_TABLES, identity };
}

/** What an exit for `code` under SVM is in VMX non-root operation; nothing where VMX has no such exit. */
export function interceptVmx(i: Instruction, code: number): void {
  const row = ROWS[code];
  if (row === undefined) return;
  const { f } = i;
  const { reason, primary, secondary, enable, identity } = row;
  f.if(
    S.nonRoot.get(f),
    () => {
      if (enable !== undefined) i.faultIf(S.secondaryControls.has(f, enable).eqz(), Vector.UD);
      const wanted = primary !== undefined
        ? S.primaryControls.has(f, primary)
        : secondary !== undefined
        ? S.secondaryControls.has(f, secondary)
        : i32(1);
      f.if(wanted, () => {
        const qualification = identity === undefined
          ? i64(0)
          : reportOperand(i, 0, { identity, size: operandSize(i, reason) });
        exitVmx(i, reason, qualification);
      });
    },
    undefined,
    "unlikely",
  );
}

/** Takes a VM exit; the instruction has not taken place. */
export function exitVmx(
  i: Instruction,
  reason: number | I32,
  qualification: I64 | number = 0,
): void {
  i.spill();
  i.f.call(i.mc.vmxExit, reason, i64(qualification));
  i.f.return();
}

/** Places in the instruction information: a register operand, operand size, second register, identity. */
const Info = { REGISTER: 0x400, REG1: 3, SIZE: 11, REG2: 28, IDENTITY: 28 } as const;
/** The same in the extended one, which has no place for the identity of an instruction. */
const Extended = { REGISTER: 0x10n, REG1: 16, SIZE: 5, REG2: 40 } as const;

/** Exits for GDTR and IDTR tell an operand size of 32 bits (1) outside of 64-bit mode. */
function operandSize(i: Instruction, reason: number): number {
  return Number(reason === VmxExit.GDTR_IDTR && i.code !== 64 && i.form.bits !== 16);
}

/** What the instruction information has besides the operand. */
interface OperandReport {
  /** Which instruction of its exit reason. */
  readonly identity?: number;
  /** Operand size: 0 for 16 bits, 1 for 32, 2 for 64. */
  readonly size?: number;
  /** Which operand is the second register. */
  readonly second?: number;
}

/**
 * Sets both fields of instruction information for operand `k`, and yields the displacement, which is what
 * the exit qualification has. A processor without APX does not let anyone read the extended one.
 */
export function reportOperand(
  i: Instruction,
  k: number,
  { identity = 0, size = 0, second }: OperandReport = {},
): I64 {
  const { f, mc } = i;
  let info = i32(identity << Info.IDENTITY | size << Info.SIZE);
  let extended = i64(size << Extended.SIZE);
  if (second !== undefined) {
    const number = i.registerNumber(second).and(31);
    info = info.or(number.shl(Info.REG2));
    extended = extended.or(number.extendU().shl(Extended.REG2));
  }
  let displacement = i64(0);
  if (i.isMemory(k)) {
    const record = i.recordAddress();
    info = info.or(f.call(mc.memoryInformation, record));
    extended = extended.or(f.call(mc.extendedMemoryInformation, record));
    displacement = f.load64(record, MicroOp.DISPLACEMENT);
  } else {
    const number = i.registerNumber(k).and(31);
    info = info.or(number.and(15).shl(Info.REG1)).or(Info.REGISTER);
    extended = extended.or(number.extendU().shl(Extended.REG1)).or(Extended.REGISTER);
  }
  writeField32(f, Vmcs.EXIT_INSTRUCTION_INFO, info);
  writeField(f, Vmcs.EXTENDED_INSTRUCTION_INFO, extended);
  return displacement;
}

/**
 * RDMSR or WRMSRNS (`write` 1) with an immediate: the MSR is the qualification, the register in the
 * instruction information; so KVM reads it (`vmx_get_msr_imm_reg`). Bochs has another qualification.
 */
export function exitImmediateMsr(i: Instruction, index: I32, write: number): void {
  const { f, mc } = i;
  f.if(
    S.nonRoot.get(f),
    () => {
      f.if(f.call(mc.vmxMsrIntercepted, index, write), () => {
        const number = i.registerNumber(0).and(31);
        writeField32(f, Vmcs.EXIT_INSTRUCTION_INFO, number.and(15).shl(Info.REG1));
        writeField(
          f,
          Vmcs.EXTENDED_INSTRUCTION_INFO,
          number.extendU().shl(Extended.REG1),
        );
        const reason = write === 1 ? VmxExit.WRMSRNS_IMMEDIATE : VmxExit.RDMSR_IMMEDIATE;
        exitVmx(i, reason, index.extendU());
      });
    },
    undefined,
    "unlikely",
  );
}

/** RDMSR or (`write` 1) WRMSR of MSR `index`. */
export function exitMsr(i: Instruction, index: I32, write: number): void {
  const { f, mc } = i;
  f.if(
    S.nonRoot.get(f),
    () => {
      f.if(f.call(mc.vmxMsrIntercepted, index, write), () => {
        exitVmx(i, write === 1 ? VmxExit.WRMSR : VmxExit.RDMSR);
      });
    },
    undefined,
    "unlikely",
  );
}

/** INVLPG of a linear address. */
export function exitInvlpg(i: Instruction, linear: I64): void {
  const { f } = i;
  const wanted = S.nonRoot.get(f).and(S.primaryControls.has(f, Primary.INVLPG));
  f.if(wanted, () => exitVmx(i, VmxExit.INVLPG, linear), undefined, "unlikely");
}

/**
 * PAUSE: exits, or with pause-loop exiting (which counts at CPL 0 only) exits when a loop of PAUSEs no
 * further apart than the gap has lasted for longer than the window.
 */
export function exitPause(i: Instruction): void {
  const { f, mc } = i;
  f.if(
    S.nonRoot.get(f),
    () => {
      f.if(S.primaryControls.has(f, Primary.PAUSE), () => exitVmx(i, VmxExit.PAUSE));
      const loops = S.secondaryControls.has(f, Secondary.PAUSE_LOOP).and(S.cpl.get(f).eqz());
      f.if(loops, () => {
        i.spill();
        const now = f.call(mc.readHostTsc);
        const gap = readField32(f, Vmcs.PLE_GAP).extendU();
        f.if(now.sub(S.pauseLast.get(f)).gtU(gap), () => S.pauseFirst.set(f, now));
        S.pauseLast.set(f, now);
        const window = readField32(f, Vmcs.PLE_WINDOW).extendU();
        const lasted = now.sub(S.pauseFirst.get(f)).gtU(window);
        f.if(lasted, () => exitVmx(i, VmxExit.PAUSE));
      });
    },
    undefined,
    "unlikely",
  );
}

/** Fields of the qualification of an I/O exit. */
const PortAccess = { IN: 0x8, STRING: 0x10, REP: 0x20, IMMEDIATE: 0x40, PORT_SHIFT: 16 } as const;

/** IN, OUT, or INS and OUTS with the `segment` of their operand; the permission has been checked. */
export function exitPort(
  i: Instruction,
  port: I32,
  bits: number,
  read: boolean,
  segment?: I32,
): void {
  const { f, mc } = i;
  f.if(f.call(mc.vmxPortIntercepted, port, bits / 8), () => {
    const immediate = i.form.operands.some(({ kind }) => kind === "I");
    const fixed = (bits / 8 - 1) | (read ? PortAccess.IN : 0) |
      (segment === undefined ? 0 : PortAccess.STRING) |
      (i.form.rep !== 0 ? PortAccess.REP : 0) |
      (immediate ? PortAccess.IMMEDIATE : 0);
    if (segment !== undefined) reportString(i, read ? Reg.RDI : Reg.RSI, segment);
    exitVmx(i, VmxExit.IO, port.shl(PortAccess.PORT_SHIFT).or(fixed).extendU());
  });
}

/** INS and OUTS report their address, its size and segment. */
function reportString(i: Instruction, register: number, segment: I32): void {
  const { f } = i;
  const offset = i.reg(register, i.addressBits);
  const base = f.load64(segmentPointer(segment), SegmentField.BASE);
  const linear = i.code === 64
    ? offset.add(segment.geU(Seg.FS).select(base, i64(0)))
    : offset.add(base).and(0xffff_ffff);
  writeField(f, Vmcs.GUEST_LINEAR_ADDRESS, linear);
  const size = { 16: 0, 32: 1, 64: 2 }[i.addressBits];
  writeField32(f, Vmcs.EXIT_INSTRUCTION_INFO, segment.shl(15).or(size << 7));
  const extended = segment.shl(7).or(size << 2);
  writeField(f, Vmcs.EXTENDED_INSTRUCTION_INFO, extended.extendU());
}

/** INT3, INTO and INT1: `event` is their exception, in the processor's own format. */
export function exceptVmx(i: Instruction, event: number): void {
  const { f, mc } = i;
  f.if(
    S.nonRoot.get(f),
    () => {
      i.spill();
      S.exceptionAddress.set(f, 0);
      f.if(f.call(mc.vmxException, event, 0), () => f.return());
    },
    undefined,
    "unlikely",
  );
}
