/**
 * MSR lists of VM entries and exits, where MSRs are not the processor's own, or are the time-stamp counter
 * (SDM vol. 3, 27.4 and 28.4).
 */
import { assertEquals } from "@std/assert";
import { EventFormat, Msr, Primary, Vector, Vmcs } from "../../plugins/cpu/mod.ts";
import { At, exitText, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;

Deno.test("an MSR that the program outside refuses with #GP fails the entry, not the guest", () => {
  const asked: number[] = [];
  bench.outside.msrWrite = (index) => {
    asked.push(index);
    const event = Vector.GP | EventFormat.EXCEPTION | EventFormat.ERROR | EventFormat.VALID;
    bench.processor.failInstruction(event, 0);
    return true;
  };
  bench.set64(At.SCRATCH, 0n);
  bench.set64(At.SCRATCH + 8, 0n);
  lab.start();
  bench.write(At.GUEST, [0xf4]);
  lab.prepare({
    [Vmcs.ENTRY_MSR_LOAD_ADDRESS]: At.SCRATCH,
    [Vmcs.ENTRY_MSR_LOAD_COUNT]: 1,
  });
  assertEquals(exitText(lab.enter()), "entry failure, MSR_LOADING 1");
  assertEquals(asked, [0]);
  bench.outside.msrWrite = () => false;
});

Deno.test("WRMSR of such an MSR is #GP(0) all the same", () => {
  bench.outside.msrWrite = () => {
    const event = Vector.GP | EventFormat.EXCEPTION | EventFormat.ERROR | EventFormat.VALID;
    bench.processor.failInstruction(event, 0);
    return true;
  };
  lab.start();
  bench.handlers(64);
  const { events } = bench.execute([0x0f, 0x30, 0xf4]);
  assertEquals(events.map(({ vector, errorCode }) => [vector, errorCode]), [[Vector.GP, 0]]);
  bench.outside.msrWrite = () => false;
});

Deno.test("the TSC that an exit stores is the processor's, without the guest's offset", () => {
  const controls = Number(standardFields()[Vmcs.PRIMARY_CONTROLS]);
  bench.set64(At.SCRATCH, BigInt(Msr.TSC));
  bench.set64(At.SCRATCH + 8, 0n);
  lab.start();
  // rdtsc; hlt
  bench.write(At.GUEST, [0x0f, 0x31, 0xf4]);
  lab.prepare({
    [Vmcs.PRIMARY_CONTROLS]: controls | Primary.TSC_OFFSETTING,
    [Vmcs.TSC_OFFSET]: 1n << 30n,
    [Vmcs.EXIT_MSR_STORE_ADDRESS]: At.SCRATCH,
    [Vmcs.EXIT_MSR_STORE_COUNT]: 1,
  });
  bench.processor.setTsc(1000);
  lab.enter();
  const seen = (bench.state.register(2) << 32n) | (bench.state.register(0) & 0xffff_ffffn);
  const stored = bench.get64(At.SCRATCH + 8);
  assertEquals(seen >= 1n << 30n, true);
  assertEquals(stored - (seen - (1n << 30n)) < 100n, true, `${stored} ${seen}`);
  assertEquals(stored < 2000n, true, `${stored}`);
});
