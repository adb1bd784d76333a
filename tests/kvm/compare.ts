/**
 * Steps random programs through `/dev/kvm` and through our processor, and compares what they hold behind
 * every instruction.
 *
 * @module
 */
import type { SystemState } from "../../core/mod.ts";
import { disassemble } from "../../plugins/cpu/mod.ts";
import { printSystem, REGISTERS } from "../random/compare.ts";
import { Host, HOSTS } from "../random/hosts.ts";
import { At, LOG_BYTES, LOG_ENTRY_BYTES, MEMORY } from "../random/machine.ts";
import { makeProgram } from "../random/program.ts";
import { type Quirk, QUIRKS } from "./quirks.ts";
import { Exit, KvmMachine, type KvmState } from "./machine.ts";

/** What is compared of the system state: what KVM_GET_SREGS gives. */
const COMPARED = [
  ...["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt", "gdt", "idt"] as const,
  ...["cr0", "cr2", "cr3", "cr4", "efer"] as const,
];
const RIP = 32;
const RFLAGS = 33;
/** TF is how KVM steps, and shows in RFLAGS; RF is not given back. */
const NOT_COMPARED_FLAGS = 0x1_0100n;
/** Steps of a program at most, and of one of both to where the other is. */
const MOST_STEPS = 4000;
const MOST_BEHIND = 80;

/** One kind of difference, or of what KVM would not do. */
export interface Kind {
  count: number;
  /** The first one met. */
  readonly seed: number;
  readonly step: number;
  readonly lines: readonly string[];
}

/** What came up in all programs so far. */
export interface Report {
  /** Steps behind which everything was compared, by mode. */
  readonly compared: Map<string, number>;
  /** Instructions compared, by mnemonic. */
  readonly instructions: Map<string, number>;
  /** Where the two differed, by mode and instruction. */
  readonly differences: Map<string, Kind>;
  /** Differences that are known, and how often they were met. */
  readonly known: Map<Quirk, number>;
  /** Exits with which KVM refused, by mode and instruction. */
  readonly refused: Map<string, Kind>;
}

/** All that a machine holds. */
interface Whole extends KvmState {
  readonly memory: Uint8Array;
}

/** A position, and what stands there. */
interface Place {
  readonly linear: number;
  readonly mode: string;
  /** Mnemonic. */
  readonly name: string;
  readonly text: string;
}

function modeOf({ registers, system }: KvmState): string {
  const { cr0, cs, efer } = system;
  if ((cr0 & 1n) === 0n) return "real";
  if ((registers[RFLAGS]! & 0x2_0000n) !== 0n) return "virtual-8086";
  const ring = cs.attributes >> 5 & 3;
  const long = (efer & 0x400n) !== 0n;
  if (long && (cs.attributes & 0x200) !== 0) return `64-bit, ring ${ring}`;
  const bits = (cs.attributes & 0x400) === 0 ? 16 : 32;
  return `${long ? "compatibility" : "protected"} ${bits}-bit, ring ${ring}`;
}

function placeOf(state: KvmState, memory: Uint8Array): Place {
  const { cs } = state.system;
  const mode = modeOf(state);
  const bits = mode.startsWith("64") ? 64 : (cs.attributes & 0x400) === 0 ? 16 : 32;
  const rip = state.registers[RIP]!;
  const linear = Number(BigInt.asUintN(bits === 64 ? 48 : 32, cs.base + rip));
  const text = disassemble(memory.slice(linear, linear + 15), bits, rip)?.text ?? "(bad)";
  const [name = ""] = text.replace(/^(lock|rep|repe|repne|repz|repnz) /, "").split(" ");
  return { linear, mode, name, text };
}

/** Compares programs, one by one. */
export class Comparison implements Disposable {
  readonly report: Report = {
    compared: new Map(),
    instructions: new Map(),
    differences: new Map(),
    known: new Map(),
    refused: new Map(),
  };
  readonly #kvm = new KvmMachine(MEMORY);
  readonly #host = new Host(HOSTS[0]!);
  readonly #hardware: boolean;
  #seed = 0;
  #step = 0;

  /** `hardware`: whether KVM has SVM or VMX to run guests with. */
  constructor(hardware: boolean) {
    this.#hardware = hardware;
  }

  [Symbol.dispose](): void {
    this.#kvm[Symbol.dispose]();
    this.#host[Symbol.dispose]();
  }

  /** Our processor's state. */
  #ours(): Whole {
    const { registers, system, memory } = this.#host.state(At.END);
    return { registers: [...registers], system, memory };
  }

  /** Makes KVM's machine hold what ours does. */
  #align(state: Whole): void {
    this.#kvm.load(state);
    this.#kvm.memory.set(state.memory);
  }

  #note(kinds: Map<string, Kind>, key: string, lines: readonly string[]): void {
    const kind = kinds.get(key);
    if (kind !== undefined) kind.count++;
    else kinds.set(key, { count: 1, seed: this.#seed, step: this.#step, lines });
  }

  /** Steps the program of a seed to its end. */
  check(seed: number): void {
    this.#seed = seed;
    const program = makeProgram(seed, {
      neutral: false,
      vectors: false,
      undefinedFlags: false,
      debug: false,
      paging: false,
      rounds: 2,
    });
    const host = this.#host;
    host.load(program);
    let ours = this.#ours();
    this.#align(ours);
    for (this.#step = 0; this.#step < MOST_STEPS; this.#step++) {
      const place = placeOf(ours, ours.memory);
      const reason = this.#stepKvm(place);
      const end = host.vm.runSync({ instructions: 1 }).reason;
      ours = this.#ours();
      // A step over HLT may count as one.
      if (place.name === "hlt") return;
      if (end !== "limit") {
        if (end !== "halted" || reason !== Exit.HLT) {
          this.#note(this.report.differences, `${place.mode}: ${place.name}: how it ends`, [
            `${place.text}, ours: ${end}, KVM: exit ${reason}`,
          ]);
        }
        return;
      }
      if (reason !== Exit.DEBUG) {
        const key = `${place.mode}: ${place.name}`;
        this.#note(this.report.refused, key, [place.text, `exit ${reason}`]);
        this.#align(ours);
        continue;
      }
      const theirs = this.#kvm.state();
      const raised = givenUp(ours, theirs, this.#kvm.memory);
      if (raised !== undefined) {
        this.#note(this.report.refused, `${place.mode}: ${place.name}`, [place.text, raised]);
        this.#align(ours);
        continue;
      }
      ours = this.#catchUp(ours, theirs);
      this.#compare(place, ours, theirs);
    }
  }

  /**
   * A step of KVM's; of repeated string instructions, all of them. Now and then the first step behind a
   * state that was put in stops where it began.
   */
  #stepKvm({ linear, text }: Place): number {
    const most = text.startsWith("rep") ? 0x1_0000 : 1;
    for (let k = 0;; k++) {
      const reason = this.#kvm.step();
      if (reason !== Exit.DEBUG || k === most) return reason;
      const { registers, system } = this.#kvm.state();
      if (Number(BigInt.asUintN(32, system.cs.base + registers[RIP]!)) !== linear) return reason;
    }
  }

  /** Where KVM did not stop behind an instruction, steps ours to where it is. */
  #catchUp(start: Whole, theirs: KvmState): Whole {
    const there = (state: KvmState): boolean =>
      state.registers[RIP] === theirs.registers[RIP] &&
      state.system.cs.base === theirs.system.cs.base;
    if (there(start)) return start;
    const { vm } = this.#host;
    const vcpu = vm.vcpus[0]!;
    const before = start;
    for (let k = 0; k < MOST_BEHIND; k++) {
      if (vm.runSync({ instructions: 1 }).reason !== "limit") break;
      if (vcpu.regs.rip !== theirs.registers[RIP]) continue;
      const ours = this.#ours();
      if (there(ours)) return ours;
    }
    // It never comes there: what counts is where it was.
    this.#restore(before);
    return before;
  }

  /** Takes our processor back to a state. */
  #restore({ registers, system, memory }: Whole): void {
    const { vm } = this.#host;
    const vcpu = vm.vcpus[0]!;
    vm.reset();
    vm.memory.write(0, memory);
    vcpu.regs.rflags = registers[RFLAGS]!;
    vm.vendor.current.setSystemState(vcpu, system);
    for (const [n, value] of registers.entries()) vcpu.regs.set(n, value);
  }

  #compare(place: Place, ours: Whole, theirs: KvmState): void {
    const { report } = this;
    const wide = modeOf(ours).startsWith("64");
    const mode = modeOf(ours);
    const fields: string[] = [];
    const lines = [place.text];
    let known = 0;
    const differ = (field: string, a: string, b: string): void => {
      if (a === b) return;
      const quirk = QUIRKS.find(({ applies }) =>
        applies({ field, ours: a, theirs: b, after: mode, ...place })
      );
      if (quirk !== undefined) {
        known++;
        report.known.set(quirk, (report.known.get(quirk) ?? 0) + 1);
        return;
      }
      fields.push(field.replace(/ [0-9a-f]+h$/, ""));
      lines.push(`${field}: ours ${a}, KVM ${b}`);
    };
    for (const [n, name] of REGISTERS.entries()) {
      let [a, b] = [ours.registers[n]!, theirs.registers[n]!];
      if (n === RFLAGS) [a, b] = [a & ~NOT_COMPARED_FLAGS, b & ~NOT_COMPARED_FLAGS];
      // Compatibility mode does not say what is in bits 63:32.
      if (!wide) [a, b] = [BigInt.asUintN(32, a), BigInt.asUintN(32, b)];
      if (n < 16 || n >= RIP) differ(name, `${a.toString(16)}h`, `${b.toString(16)}h`);
    }
    for (const name of COMPARED) differ(name, part(ours.system, name), part(theirs.system, name));
    const at = firstDifference(ours.memory, this.#kvm.memory);
    if (at >= 0) {
      const four = (bytes: Uint8Array): string => {
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        return view.getUint32(at, true).toString(16);
      };
      differ(`${regionOf(at)} ${at.toString(16)}h`, four(ours.memory), four(this.#kvm.memory));
    }
    if (fields.length === 0) {
      if (known > 0) this.#align(ours);
      report.compared.set(place.mode, (report.compared.get(place.mode) ?? 0) + 1);
      report.instructions.set(place.name, (report.instructions.get(place.name) ?? 0) + 1);
      return;
    }
    // Without SVM or VMX, ring 3 runs natively, and is often not stopped where it should be.
    // IRET to it from compatibility mode ends in #GP.
    const way = `${place.mode} ${place.name} ${mode}`;
    if (!this.#hardware && /ring 3|virtual|compatibility.* iret/.test(way)) {
      this.#note(report.refused, `${place.mode}: ${place.name}`, [...lines, "ring 3 went on"]);
      this.#align(ours);
      return;
    }
    this.#note(report.differences, `${place.mode}: ${place.name}: ${fields.join(" ")}`, lines);
    this.#align(ours);
  }
}

/**
 * Whether KVM did something else than carry out an instruction that ours does: it delivered #UD, for what
 * its emulator does not know, or #DB, where the step that it makes itself reaches the guest; or it has
 * left virtual-8086 mode.
 */
function givenUp(ours: Whole, theirs: KvmState, memory: Uint8Array): string | undefined {
  const virtual = ({ registers }: KvmState): boolean => (registers[RFLAGS]! & 0x2_0000n) !== 0n;
  if (virtual(ours) && !virtual(theirs)) return "virtual-8086 mode is not kept";
  const at = theirs.registers[RIP]!;
  if (at === ours.registers[RIP]) return undefined;
  const { system } = ours;
  const real = (theirs.system.cr0 & 1n) === 0n;
  const stride = real ? 4 : (system.efer & 0x400n) !== 0n ? 16 : 8;
  const view = new DataView(memory.buffer, memory.byteOffset);
  for (const [vector, name] of [[1, "#DB"], [6, "#UD"]] as const) {
    const gate = Number(system.idt.base) + stride * vector;
    const high = real ? 0 : view.getUint16(gate + 6, true) << 16;
    const handler = view.getUint16(gate, true) | high;
    // The step ends behind the handler's first instruction, a PUSH of two bytes.
    if (BigInt(handler) === at || BigInt(handler + 2) === at) return `${name} of KVM's`;
    for (let entry = At.LOG; entry < At.LOG + LOG_BYTES; entry += LOG_ENTRY_BYTES) {
      if (memory[entry] === vector && ours.memory[entry] !== vector) return `${name} of KVM's`;
    }
  }
  return undefined;
}

function part(system: SystemState, name: (typeof COMPARED)[number]): string {
  return printSystem(system[name]);
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const words = (bytes: Uint8Array) => new Uint32Array(bytes.buffer, bytes.byteOffset, At.END >> 2);
  const [one, other] = [words(a), words(b)];
  for (let k = 0; k < one.length; k++) if (one[k] !== other[k]) return 4 * k;
  return -1;
}

/** What lies at an address. */
function regionOf(at: number): string {
  if (at < At.TSS) return "descriptor";
  if (at < At.LOG) return "TSS";
  if (at < At.CODE) return "stack";
  if (at < At.LONG_TABLES) return "code";
  return at < At.FRAMES ? "page table" : "data";
}
