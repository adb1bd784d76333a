/**
 * Both tiers come out of one text: a straight block compiled by the same emitters, with operands constant
 * and guest registers in WebAssembly locals, leaves the state the interpreter leaves.
 */
import { assert, assertEquals } from "@std/assert";
import { Decoder } from "../decode/decoder.ts";
import { type DecodeMode, DecodeStatus } from "../decode/status.ts";
import type { Form } from "../decode/form.ts";
import type { Microcode } from "../microcode/microcode.ts";
import type { FlagState } from "../semantics/flags.ts";
import { Instruction } from "../semantics/instruction.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { Attr, registerAddress, S, Seg } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  ModuleBuilder,
  type Variable,
} from "../wasm/mod.ts";
import { buildMicrocode, TABLE_SIZE } from "./handlers.ts";
import { Machine } from "./machine.ts";
import { processorModel } from "../models.ts";
import { resetProcessor } from "./reset.ts";

/** What the decoder says of an instruction, as constants. */
interface Decoded {
  readonly form: Form;
  readonly registers: readonly [number, number, number];
  readonly index: number;
  readonly scale: number;
  readonly displacement: bigint;
  readonly immediate: bigint;
  readonly rip: bigint;
  readonly length: number;
}

/** An instruction of the compiler: operands are constants, registers are locals. */
class CompiledInstruction extends Instruction {
  readonly #decoded: Decoded;
  readonly #registers: readonly Variable<I64>[];

  constructor(
    mc: Microcode,
    f: FunctionBuilder,
    decoded: Decoded,
    registers: readonly Variable<I64>[],
    flags: FlagState,
  ) {
    super(mc, f, decoded.form, flags);
    this.#decoded = decoded;
    this.#registers = registers;
  }

  /** Register number and bit offset (AH, CH, DH, BH) of a state address. */
  #place(address: number): [number, number] {
    const offset = address - registerAddress(0);
    return [offset >> 3, (offset & 7) * 8];
  }

  #read(address: number, bits: number, signed: boolean): I64 {
    if (address === S.zero) return i64(0);
    const [n, shift] = this.#place(address);
    const value = this.#registers[n]!.get().shrU(shift);
    return signed ? value.signExtend(bits) : value.zeroExtend(bits);
  }

  #write(address: number, bits: number, value: I64): void {
    const [n, shift] = this.#place(address);
    const register = this.#registers[n]!;
    if (bits >= 32) register.set(value.zeroExtend(bits));
    else {
      const mask = ((1n << BigInt(bits)) - 1n) << BigInt(shift);
      const kept = register.get().and(~mask);
      register.set(kept.or(value.zeroExtend(bits).shl(shift)));
    }
  }

  protected readRegister(k: number, bits: number, signed: boolean): I64 {
    return this.#read(this.#decoded.registers[k]!, bits, signed);
  }
  protected writeRegister(k: number, bits: number, value: I64): void {
    this.#write(this.#decoded.registers[k]!, bits, value);
  }
  protected smallConstant(k: number): I32 {
    return i32(this.#decoded.registers[k]!);
  }
  protected readFixed(n: number, bits: number, signed: boolean): I64 {
    return this.#read(registerAddress(n), bits, signed);
  }
  protected writeFixed(n: number, bits: number, value: I64): void {
    this.#write(registerAddress(n), bits, value);
  }
  immediate(): I64 {
    return i64(this.#decoded.immediate);
  }
  second(): I64 {
    return i64(this.#decoded.displacement);
  }
  protected operandAddress(): I64 {
    const { registers, index, scale, displacement } = this.#decoded;
    return this.#read(registers[2], 64, false)
      .add(this.#read(index, 64, false).shl(scale))
      .add(displacement);
  }
  offset(): I64 {
    return this.operandAddress();
  }
  segment(): I32 {
    return i32(Seg.DS);
  }
  registerNumber(k: number): I32 {
    return i32(this.#place(this.#decoded.registers[k]!)[0]);
  }
  recordAddress(): I32 {
    return i32(0);
  }
  rip(): I64 {
    return i64(this.#decoded.rip);
  }
  nextRip(): I64 {
    return i64(this.#decoded.rip + BigInt(this.#decoded.length));
  }
  protected emitSpill(): void {}
  branchTaken(): void {
    throw new Error("the block is straight");
  }
  branchNotTaken(): void {
    throw new Error("the block is straight");
  }
  jumpTo(): void {
    throw new Error("the block is straight");
  }
  leaveAt(): void {
    throw new Error("the block is straight");
  }
  leaveAsIs(): void {
    throw new Error("the block is straight");
  }
}

const MODE: DecodeMode = {
  code: 64,
  stack: 64,
  flatStack: true,
  flatData: true,
  vex: true,
  apx: true,
};
const CODE_AT = 0x1000;
const DATA_AT = 0x3000;

// deno-fmt-ignore
const PROGRAM: readonly number[] = [
  0x48, 0x01, 0xd8,                   // add rax, rbx
  0x11, 0xca,                         // adc edx, ecx
  0x48, 0xff, 0xc6,                   // inc rsi
  0x66, 0x83, 0xd7, 0x05,             // adc di, 5
  0x00, 0xc4,                         // add ah, al
  0x49, 0xc1, 0xe0, 0x07,             // shl r8, 7
  0x41, 0xd3, 0xd9,                   // rcr r9d, cl
  0x4d, 0x0f, 0xaf, 0xd3,             // imul r10, r11
  0x48, 0x8d, 0x44, 0x98, 0x11,       // lea rax, [rax + rbx*4 + 0x11]
  0x4c, 0x89, 0x65, 0x08,             // mov [rbp + 8], r12
  0x44, 0x03, 0x6d, 0x0a,             // add r13d, [rbp + 10]
  0x66, 0xff, 0x45, 0x09,             // inc word [rbp + 9]
  0x48, 0x81, 0x6d, 0x10, 0x78, 0x56, 0x34, 0x12, // sub qword [rbp + 16], 0x12345678
  0x41, 0x0f, 0x42, 0xc6,             // cmovb eax, r14d
  0x41, 0x0f, 0x9f, 0xc7,             // setg r15b
  0x50,                               // push rax
  0x59,                               // pop rcx
  0x48, 0x0f, 0xba, 0xe3, 0x21,       // bt rbx, 33
  0x9f,                               // lahf
  0x19, 0xd2,                         // sbb edx, edx
  0x48, 0x0f, 0xc8,                   // bswap rax
  0xf7, 0xe3,                         // mul ebx
];

/** Long mode, supervisor, the first 2 MiB mapped one to one by a large page. */
function makeMachine(): Machine {
  const machine = new Machine({ memoryBytes: 4 << 20, cpus: 1, model: processorModel() });
  machine.addMemory(0, 4 << 20);
  const { state, longs } = machine;
  const put = (pa: number, value: bigint): void => {
    longs[machine.translate(pa) >> 3] = value;
  };
  put(0x10_0000, 0x10_1003n);
  put(0x10_1000, 0x10_2003n);
  put(0x10_2000, 0xe3n);
  resetProcessor(state, false, 0);
  state.set(S.cr0, 0x8000_0011n);
  state.set(S.cr3, 0x10_0000n);
  state.set(S.cr4, 0x20n);
  state.set(S.efer, 0x500n);
  const attributes = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED | Attr.L;
  state.setSegment(Seg.CS, { selector: 8, attributes, limit: 0xffff_ffff, base: 0n });
  machine.refresh();
  machine.bytes.set(PROGRAM, machine.translate(CODE_AT));
  return machine;
}

function setRegisters(machine: Machine, seed: number): void {
  let x = BigInt(seed) * 0x9e37_79b9_7f4a_7c15n + 1n;
  const next = (): bigint => {
    x = BigInt.asUintN(64, x * 0x5851_f42d_4c95_7f2dn + 0x1405_7b7e_f767_814fn);
    return x ^ (x >> 29n);
  };
  for (let n = 0; n < 16; n++) machine.state.setRegister(n, BigInt.asUintN(64, next()));
  machine.state.setRegister(4, 0x8000n);
  machine.state.setRegister(5, BigInt(DATA_AT));
  for (let k = 0; k < 8; k++) {
    machine.longs[(machine.translate(DATA_AT) >> 3) + k] = BigInt.asUintN(64, next());
  }
  machine.state.set(S.rip, BigInt(CODE_AT));
  machine.state.set32(S.flagsKind, 25);
  machine.state.set(S.flagsA, next() & 0x8d5n);
}

interface Outcome {
  readonly registers: readonly bigint[];
  readonly flags: bigint;
  readonly memory: readonly bigint[];
}

function outcome(machine: Machine): Outcome {
  const data = machine.translate(DATA_AT) >> 3;
  return {
    registers: Array.from({ length: 16 }, (_, n) => machine.state.register(n)),
    flags: (machine.exports.readFlags!() as bigint) & 0xfffn,
    memory: Array.from(machine.longs.subarray(data, data + 8)),
  };
}

function decodeAll(): Decoded[] {
  const decoder = new Decoder();
  const bytes = Uint8Array.from(PROGRAM);
  const wide = (low: number, high: number): bigint =>
    BigInt.asUintN(64, (BigInt(high) << 32n) | BigInt(low >>> 0));
  const decoded: Decoded[] = [];
  for (let at = 0; at < bytes.length; at += decoder.length) {
    const status = decoder.decode(bytes, at, bytes.length, MODE, CODE_AT + at, 0);
    assertEquals(status, DecodeStatus.OK);
    decoded.push({
      form: decoder.form(SEMANTICS[decoder.entry.name]!),
      registers: [decoder.reg0, decoder.reg1, decoder.base],
      index: decoder.index,
      scale: decoder.addressing & 3,
      displacement: wide(decoder.displacementLow, decoder.displacementHigh),
      immediate: wide(decoder.immediateLow, decoder.immediateHigh),
      rip: BigInt(CODE_AT + at),
      length: decoder.length,
    });
  }
  return decoded;
}

/** Compiles the whole program to one function that loads, computes and stores. */
function compile(machine: Machine, decoded: readonly Decoded[]): () => void {
  const memoryPages = machine.memory.buffer.byteLength / 0x1_0000;
  const { microcode } = buildMicrocode(memoryPages);
  const module = new ModuleBuilder({ memoryPages, tableSize: TABLE_SIZE });
  module.define("region", [], undefined, (f) => {
    const registers = Array.from(
      { length: 16 },
      (_, n) => f.variable(I64T, f.load64(0, registerAddress(n))),
    );
    let flags: FlagState = {
      kind: f.variable(I32T, S.flagsKind.get(f)).get(),
      a: f.variable(I64T, S.flagsA.get(f)).get(),
      b: f.variable(I64T, S.flagsB.get(f)).get(),
    };
    for (const one of decoded) {
      const i = new CompiledInstruction(microcode, f, one, registers, flags);
      SEMANTICS[one.form.name]!.emit(i);
      flags = i.flags;
    }
    for (const [n, register] of registers.entries()) {
      f.store64(0, register.get(), registerAddress(n));
    }
    S.flagsKind.set(f, flags.kind);
    S.flagsA.set(f, flags.a);
    S.flagsB.set(f, flags.b);
  }, true);
  const compiled = new WebAssembly.Module(module.encode());
  const { exports } = new WebAssembly.Instance(compiled, { env: machine.handlers.environment });
  return exports.region as () => void;
}

Deno.test("a straight block compiled from the emitters leaves what the interpreter leaves", () => {
  const interpreted = makeMachine();
  const compiled = makeMachine();
  const decoded = decodeAll();
  const region = compile(compiled, decoded);
  let changed = 0;
  for (let seed = 1; seed <= 200; seed++) {
    setRegisters(interpreted, seed);
    setRegisters(compiled, seed);
    const before = outcome(interpreted);
    interpreted.run(decoded.length);
    region();
    assertEquals(outcome(compiled), outcome(interpreted), `seed ${seed}`);
    changed += Number(outcome(compiled).registers.join() !== before.registers.join());
    assertEquals(interpreted.state.rip, BigInt(CODE_AT + PROGRAM.length));
  }
  assert(changed === 200);
});
