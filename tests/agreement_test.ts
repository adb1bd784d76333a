/**
 * The same guest on the bare processor and under a hypervisor ends in the same state, and the same run
 * twice is the same run, to the last exit.
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { createVm, observeExitHook, type Plugin, type RunResult, type Vm } from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { profile } from "../plugins/profile/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const MIB = 2 ** 20;
const MEMORY = 16 * MIB;
/** A vendor and the kind of processor it runs on. */
interface Host {
  readonly vendor: () => Plugin;
  readonly model?: CpuModel;
}

const AMD: Host = { vendor: metal };
const INTEL: Host = { vendor: metal, model: "sapphire-rapids" };
const SVM: Host = { vendor: svm };
const VMX: Host = { vendor: vmx, model: "sapphire-rapids" };

const HOSTS: readonly (readonly [name: string, host: Host])[] = [
  ["metal", AMD],
  ["svm", SVM],
  ["vmx", VMX],
];
/** Hypervisors, each with the bare processor that it should be like. */
const PAIRS: readonly (readonly [name: string, hypervisor: Host, bare: Host])[] = [
  ["svm", SVM, AMD],
  ["vmx", VMX, INTEL],
];

interface Ended {
  readonly vm: Vm;
  readonly result: RunResult;
  readonly printed: string;
}

interface GuestOptions {
  readonly commandLine?: string;
  readonly limit?: number;
  readonly plugins?: readonly Plugin[];
}

async function runGuest(
  { vendor, model = "zen4" }: Host,
  name: string,
  options: GuestOptions = {},
): Promise<Ended> {
  const bytes = await Deno.readFile(
    new URL(`../examples/guests/${name}/${name}.elf`, import.meta.url),
  );
  const { commandLine = "", limit = 2e8, plugins = [] } = options;
  let printed = "";
  const decoder = new TextDecoder();
  const output = (bytes: Uint8Array) => void (printed += decoder.decode(bytes, { stream: true }));
  const vm = await createVm({
    memory: MEMORY,
    plugins: [cpu({ model }), vendor(), pic(), debugExit(), serial({ output }), ...plugins],
    images: [loadImage(bytes, { name: `${name}.elf`, commandLine })],
  });
  return { vm, result: await vm.run({ instructions: limit }), printed };
}

/** FNV-1a, 32 bits, of numbers taken as 32 bits each. */
class Digest {
  value: number = 0x811c_9dc5;
  count = 0;

  add(...words: readonly number[]): void {
    for (const word of words) this.value = Math.imul(this.value ^ word, 0x0100_0193);
    this.count++;
  }
}

/** Everything a guest leaves behind that can be compared: registers and system registers. */
function stateOf({ vm }: Ended): Record<string, unknown> {
  const [vcpu] = vm.vcpus;
  assert(vcpu !== undefined);
  const registers = Array.from({ length: 34 }, (_, index) => vcpu.regs.get(index));
  // The board has no local APIC: the vendors need not agree on where it is.
  const { apicBase: _, ...system } = vm.vendor.current.getSystemState(vcpu);
  return { registers, ...system };
}

function memoryOf({ vm }: Ended): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(MEMORY);
  vm.memory.read(0, bytes);
  return bytes;
}

/** First address at which two memories differ, -1 if they do not. */
function difference(a: Uint8Array, b: Uint8Array): number {
  return a.findIndex((byte, address) => byte !== b[address]);
}

/** Lines that name the machine. */
const MACHINE_LINES = /^(?:cpu|memory):.*\n/gm;

const GUESTS: readonly (readonly [name: string, commandLine: string, end: string])[] = [
  ["tour", "", "exit-code"],
  ["loops", "", "exit-code"],
  ["kernels", "bits=32", "exit-code"],
  ["moves", "bits=32", "exit-code"],
  ["floats", "", "exit-code"],
  ["system", "bits=32", "exit-code"],
  ["exits", "", "exit-code"],
  ["locks", "", "exit-code"],
  ["steps", "", "exit-code"],
  ["triple", "", "shutdown"],
  ["wildjump", "", "shutdown"],
  ["hang", "", "halted"],
  ["spin", "", "limit"],
];

/**
 * Guests that do not leave the same behind: several vCPUs take turns at other moments where there are
 * other exits, and SVM is something that a guest of svm need not have. The tests that compare them.
 */
const ELSEWHERE: Readonly<Record<string, string>> = {
  apic: "smp_test.ts",
  apichost: "smp_test.ts",
  apx: "apx/guests_test.ts",
  egprs: "apx/guests_test.ts",
  ipistorm: "smp_test.ts",
  smp: "smp_test.ts",
  svm: "svm_guest_test.ts",
  ticks: "smp_test.ts",
};

Deno.test("no guest is forgotten", async () => {
  const guests = new URL("../examples/guests/", import.meta.url);
  const compared = new Set(GUESTS.map(([name]) => name));
  for await (const { name, isDirectory } of Deno.readDir(guests)) {
    if (!isDirectory || name === "lib" || compared.has(name)) continue;
    const file = ELSEWHERE[name];
    assert(file !== undefined, `the guest "${name}" is compared nowhere`);
    const text = await Deno.readTextFile(new URL(file, import.meta.url));
    assert(text.includes(`"${name}"`) || text.includes(`/${name}.elf`), `${file} has no "${name}"`);
  }
});

const limitOf = (name: string): number => name === "spin" ? 10_000_000 : 2e8;

const CASES = PAIRS.flatMap((pair) => GUESTS.map((guest) => [...pair, ...guest] as const));
for (const [hypervisor, over, bare, name, commandLine, end] of CASES) {
  Deno.test(`metal and ${hypervisor} agree on what the guest "${name}" leaves behind`, async () => {
    const [a, b] = await Promise.all(
      [bare, over].map((host) => runGuest(host, name, { commandLine, limit: limitOf(name) })),
    ) as [Ended, Ended];
    using _a = a.vm;
    using _b = b.vm;
    assertEquals([a.result.reason, b.result.reason], [end, end]);
    assertEquals(a.printed.replaceAll(MACHINE_LINES, ""), b.printed.replaceAll(MACHINE_LINES, ""));
    assertEquals(/^cpu: excused/m.test(a.printed + b.printed), false);
    assertEquals(stateOf(a), stateOf(b));
    assertEquals(difference(memoryOf(a), memoryOf(b)), -1);
    // The tour looks at CPUID, which tells the two apart, and prints more about a hypervisor.
    if (name !== "tour") assertEquals(a.result.instructions, b.result.instructions);
  });
}

/** Digests every exit: reason, place, time, and all that the exit record holds for its reason. */
function exitDigest(digest: Digest): Plugin {
  return {
    name: "exit-digest",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, ({ regs, vm, id }, exit) => {
        digest.add(id, exit.reason, regs.lo(32), regs.hi(32), vm.instructions);
        digest.add(
          vm.clock.current.now(),
          exit.port,
          exit.size,
          Number(exit.write),
          exit.lo,
          exit.hi,
        );
        digest.add(exit.leaf, exit.subleaf, exit.msr, exit.gpa, exit.vector, exit.errorCode);
      });
    },
  };
}

for (const [vendorName, host] of HOSTS) {
  Deno.test(`${vendorName}: two runs are identical to the last exit`, async () => {
    const once = async (name: string, others: readonly Plugin[] = []) => {
      const digest = new Digest();
      const plugins = [exitDigest(digest), ...others];
      const ended = await runGuest(host, name, { plugins, limit: limitOf(name) });
      using vm = ended.vm;
      const memory = await crypto.subtle.digest("SHA-256", memoryOf(ended));
      return {
        digest: digest.value,
        count: digest.count,
        exits: vm.exits,
        instructions: vm.instructions,
        time: vm.clock.current.now(),
        printed: ended.printed,
        state: stateOf(ended),
        memory: new Uint8Array(memory),
      };
    };
    for (const [name] of GUESTS) {
      const first = await once(name);
      assertEquals(first.count, 3 * first.exits);
      assert(first.exits > 30);
      assertEquals(await once(name), first);
    }
    // Who watches changes nothing.
    assertEquals(await once("tour", [profile()]), await once("tour"));
  });

  Deno.test(`${vendorName}: how a run is sliced cannot be noticed`, async () => {
    const whole = new Digest();
    const pieces = new Digest();
    const all = await runGuest(host, "exits", { plugins: [exitDigest(whole)] });
    using _all = all.vm;
    const part = await runGuest(host, "exits", { plugins: [exitDigest(pieces)], limit: 1 });
    using vm = part.vm;
    let result = part.result;
    for (let step = 1; result.reason === "limit"; step = step * 7 % 997) {
      result = vm.runSync({ instructions: step });
    }
    assertEquals(vm.instructions, all.vm.instructions);
    assertEquals([pieces.value, pieces.count], [whole.value, whole.count]);
    assertEquals(stateOf(part), stateOf(all));
  });
}

Deno.test("the digest tells different runs apart", async () => {
  const digestOf = async (commandLine: string) => {
    const digest = new Digest();
    const { vm } = await runGuest(SVM, "exits", { commandLine, plugins: [exitDigest(digest)] });
    vm.close();
    return digest.value;
  };
  assertNotEquals(await digestOf("cpuid=5"), await digestOf("cpuid=6"));
});
