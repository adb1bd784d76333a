/**
 * Random programs with loops, calls, faults and self-modification on the bare processor and under each
 * hypervisor, interpreted and compiled, in one piece and in many: the same state in the end.
 */
import { assert, assertEquals } from "@std/assert";
import { createVm, type Plugin, type Vm } from "../core/mod.ts";
import { cpu, type CpuModel, type Tier } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import {
  DATA_AT,
  FUNCTIONS_AT,
  makeProgram,
  PROGRAM_AT,
  Random,
  STACK_AT,
} from "./silicon/programs.ts";

const SEED = 5000;
const PROGRAMS = 16;
const STACK_BYTES = 0x4000;
const BYTES = STACK_AT + STACK_BYTES - PROGRAM_AT;

interface Host {
  readonly name: string;
  readonly vendor: () => Plugin;
  readonly model: CpuModel;
  readonly tier: Tier;
  /** Whether the run is cut into pieces. */
  readonly pieces: boolean;
}

const HOSTS: readonly Host[] = [
  { name: "AMD, interpreted", vendor: metal, model: "zen4", tier: 1, pieces: false },
  { name: "AMD, compiled", vendor: metal, model: "zen4", tier: 2, pieces: true },
  { name: "svm", vendor: svm, model: "zen4", tier: 2, pieces: false },
  { name: "svm, in pieces", vendor: svm, model: "zen4", tier: "auto", pieces: true },
  { name: "Intel", vendor: metal, model: "sapphire-rapids", tier: "auto", pieces: false },
  { name: "vmx", vendor: vmx, model: "sapphire-rapids", tier: 2, pieces: false },
  { name: "vmx, in pieces", vendor: vmx, model: "sapphire-rapids", tier: "auto", pieces: true },
];

function stateOf(vm: Vm): Record<string, string> {
  const [vcpu] = vm.vcpus;
  assert(vcpu !== undefined);
  const state: Record<string, string> = { instructions: String(vm.instructions) };
  for (let n = 0; n < 34; n++) state[`register ${n}`] = vcpu.regs.get(n).toString(16);
  return state;
}

async function end(seed: number, mode: 32 | 64, host: Host) {
  const program = makeProgram(seed, mode);
  const bytes = new Uint8Array(BYTES);
  bytes.set(program.main);
  bytes.set(program.functions, FUNCTIONS_AT - PROGRAM_AT);
  bytes.set(program.data, DATA_AT - PROGRAM_AT);
  const image = flat(bytes, {
    address: PROGRAM_AT,
    entry: { mode: mode === 64 ? "long64" : "protected32" },
  });
  using vm = await createVm({
    memory: 4 * 2 ** 20,
    plugins: [cpu({ model: host.model, tier: host.tier }), host.vendor()],
    images: [image],
  });
  const [vcpu] = vm.vcpus;
  for (const [n, value] of program.registers.entries()) {
    if (mode === 64 || n < 8) vcpu!.regs.set(n, mode === 64 ? value : value & 0xffff_ffffn);
  }
  vcpu!.regs.set(4, BigInt(STACK_AT + STACK_BYTES - 64));
  const random = new Random(seed);
  let reason: string;
  do {
    const instructions = host.pieces ? 1 + random.below(2000) : 1e7;
    ({ reason } = await vm.run({ instructions }));
  } while (reason === "limit");
  const memory = new Uint8Array(BYTES);
  vm.memory.read(PROGRAM_AT, memory);
  return { reason, state: stateOf(vm), memory };
}

for (const mode of [64, 32] as const) {
  Deno.test(`random ${mode}-bit programs end the same on metal, svm and vmx`, async () => {
    console.log(`seeds from ${SEED}`);
    for (let seed = SEED; seed < SEED + PROGRAMS; seed++) {
      const [first, ...others] = await Promise.all(
        HOSTS.map(async (host) => ({ host, ...await end(seed, mode, host) })),
      );
      assert(first !== undefined);
      for (const { host, reason, state, memory } of others) {
        const where = `seed ${seed}, ${host.name}`;
        assertEquals([reason, state], [first.reason, first.state], where);
        const at = memory.findIndex((byte, k) => byte !== first.memory[k]);
        assertEquals(at, -1, `${where}: memory from ${(PROGRAM_AT + at).toString(16)}h`);
      }
    }
  });
}
