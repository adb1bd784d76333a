/**
 * Priorities, acceptance, EOI, errors, and who a message is for.
 */

import { assertEquals } from "@std/assert";
import { eventRequest, MpState, type Plugin, type Vcpu } from "../../core/mod.ts";
import { type Board, board, toX2apic } from "./fixture_test.ts";
import {
  ApicMessage,
  deliverInterruptHook,
  endOfInterruptHook,
  eoiMessageHook,
  extendedLogicalId,
  lapicSlot,
  MessageType,
} from "./mod.ts";
import { acceptStartup } from "./startup.ts";

/** Vectors requested at each local APIC. */
const requested = (b: Board): number[][] =>
  b.apics.map((apic) => {
    const found = [];
    for (let v = 0; v < 256; v++) if (apic.registers.hasVector(0x200, v)) found.push(v);
    return found;
  });

/** Which local APICs have vector 31h requested, as a string of ids. */
const who = (b: Board): string =>
  requested(b).map((vectors, k) => vectors.includes(0x31) ? `${k}` : "").join("");

function listener(log: string[]): Plugin {
  return {
    name: "listener",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(eoiMessageHook, ({ id }, vector) => void log.push(`message ${id} ${vector}`));
      ctx.on(endOfInterruptHook, ({ id }, vector) => void log.push(`end ${id} ${vector}`));
    },
  };
}

Deno.test("PPR: the higher class of TPR and ISR, with TPR's sub-class where it is TPR's", () => {
  using b = board();
  const [apic] = b.apics;
  // [TPR, highest in service, PPR]
  const rows = [
    [0x00, 0, 0x00],
    [0x2f, 0, 0x2f],
    [0x2f, 0x21, 0x2f],
    [0x2f, 0x31, 0x30],
    [0x30, 0x3f, 0x30],
    [0x20, 0xff, 0xf0],
    [0xff, 0xf0, 0xff],
  ] as const;
  for (const [tpr, isr, ppr] of rows) {
    if (isr !== 0) apic!.registers.setVector(0x100, isr);
    b.write(0x80, tpr);
    assertEquals([tpr, isr, b.read(0xa0)], [tpr, isr, ppr]);
    assertEquals(b.read(0x90), tpr >> 4 >= isr >> 4 ? tpr : isr & 0xf0);
    if (isr !== 0) apic!.registers.clearVector(0x100, isr);
  }
  // Requests count for the arbitration priority.
  b.write(0x80, 0x25);
  apic!.accept(0x83, false);
  assertEquals([b.read(0xa0), b.read(0x90)], [0x25, 0x80]);
});

Deno.test("an interrupt is deliverable if its class is higher than PPR's", () => {
  using b = board();
  const [apic] = b.apics;
  for (let vector = 16; vector < 256; vector++) {
    apic!.setIrr(vector);
    for (const tpr of [0, 0x0f, 0x10, 0x1f, 0x20, 0x7f, 0x80, 0xef, 0xf0, 0xff]) {
      b.write(0x80, tpr);
      const expected = vector >> 4 > tpr >> 4 ? vector : -1;
      assertEquals([vector, tpr, apic!.deliverable], [vector, tpr, expected]);
      assertEquals(apic!.waitsForTaskPriority, expected < 0);
    }
    apic!.registers.clearVector(0x200, vector);
  }
});

Deno.test("acknowledge moves the highest request into service; EOI ends the highest in service", () => {
  using b = board();
  const [apic] = b.apics;
  for (const vector of [0x31, 0x45, 0x42]) apic!.accept(vector, false);
  assertEquals(apic!.acknowledge(), 0x45);
  // 42h is of the same class and has to wait.
  assertEquals([apic!.deliverable, b.read(0xa0)], [-1, 0x40]);
  apic!.accept(0x51, false);
  assertEquals(apic!.acknowledge(), 0x51);
  assertEquals(b.read(0xa0), 0x50);
  b.write(0xb0, 0);
  assertEquals([b.read(0xa0), apic!.deliverable], [0x40, -1]);
  b.write(0xb0, 0);
  assertEquals(apic!.acknowledge(), 0x42);
  b.write(0xb0, 0);
  assertEquals(apic!.acknowledge(), 0x31);
  b.write(0xb0, 0);
  assertEquals([apic!.highestIsr, apic!.highestIrr], [-1, -1]);
  // With nothing in service it has no effect; with nothing to deliver the vector is spurious.
  b.write(0xb0, 0);
  b.write(0xf0, 0x1fe);
  assertEquals(apic!.acknowledge(), 0xfe);
  assertEquals(apic!.highestIsr, -1);
});

Deno.test("requests that are there already merge; a second can wait behind one in service", () => {
  using b = board();
  const [apic] = b.apics;
  apic!.accept(0x40, false);
  apic!.accept(0x40, false);
  assertEquals(apic!.acknowledge(), 0x40);
  apic!.accept(0x40, false);
  assertEquals(apic!.deliverable, -1);
  b.write(0xb0, 0);
  assertEquals(apic!.acknowledge(), 0x40);
  b.write(0xb0, 0);
  assertEquals(apic!.deliverable, -1);
});

Deno.test("level-triggered interrupts set TMR, and their end is announced", () => {
  const log: string[] = [];
  using b = board({ plugins: [listener(log)] });
  const [apic] = b.apics;
  apic!.accept(0x63, true);
  apic!.accept(0x52, false);
  assertEquals([b.read(0x1b0), b.read(0x1a0)], [8, 0]);
  for (const vector of [0x63, 0x52]) {
    assertEquals(apic!.acknowledge(), vector);
    b.write(0xb0, 0);
  }
  assertEquals(log, ["end 0 99", "message 0 99", "end 0 82"]);
  // The same vector edge-triggered clears the bit again.
  apic!.accept(0x63, false);
  assertEquals(b.read(0x1b0), 0);
  log.length = 0;
  apic!.acceleratedEnd(0x63);
  assertEquals(log, ["end 0 99"]);
});

Deno.test("EOI messages can be suppressed", () => {
  const log: string[] = [];
  using b = board({ vendor: "intel", eoiSuppression: true, plugins: [listener(log)] });
  const [apic] = b.apics;
  b.write(0xf0, 0x11ff);
  apic!.accept(0x63, true);
  apic!.acknowledge();
  b.write(0xb0, 0);
  assertEquals(log, ["end 0 99"]);
});

Deno.test("disabled by software: nothing is accepted but NMI, INIT, SIPI; entries are masked", () => {
  using b = board();
  const [apic] = b.apics;
  const bus = b.vm.slots.ref(lapicSlot).current;
  for (const offset of [0x320, 0x330, 0x340, 0x350, 0x360, 0x370]) b.write(offset, 0x41);
  apic!.accept(0x40, false);
  b.write(0xf0, 0xff);
  for (const offset of [0x320, 0x330, 0x340, 0x350, 0x360, 0x370]) {
    assertEquals(b.read(offset), 0x1_0041);
    b.write(offset, 0x42);
    assertEquals(b.read(offset), 0x1_0042);
  }
  assertEquals(apic!.accept(0x50, false), false);
  // What was requested stays.
  assertEquals(requested(b), [[0x40]]);
  const message = new ApicMessage();
  message.type = MessageType.NMI;
  assertEquals([bus.send(message), b.vcpus[0]!.events.nmiPending], [1, 1]);
  message.type = MessageType.INIT;
  assertEquals([bus.send(message), apic!.initPending], [1, true]);
  // Enabled again, the masks stay.
  b.write(0xf0, 0x1ff);
  assertEquals(b.read(0x320), 0x1_0042);
});

Deno.test("illegal vectors: sending sets ESR bit 5, receiving bit 6, and the error entry fires", () => {
  using b = board({ cpus: 2 });
  const [apic] = b.apics;
  b.write(0x370, 0xfb);
  for (const type of [0, 1]) {
    b.write(0x300, 0x4000 | type << 8 | 15);
    assertEquals(requested(b), [[0xfb], []]);
    b.write(0x280, 0);
    assertEquals(b.read(0x280), 0x20);
    apic!.registers.clearVector(0x200, 0xfb);
  }
  assertEquals(apic!.accept(15, false), true);
  b.write(0x280, 0);
  assertEquals([b.read(0x280), requested(b)], [0x40, [[0xfb], []]]);
  // An entry of the local vector table with such a vector; and the error entry itself.
  b.write(0x330, 0x0f);
  apic!.lvt.fire(0x330);
  b.write(0x280, 0);
  assertEquals(b.read(0x280), 0x40);
  b.write(0x370, 0x0f);
  b.read(0x010);
  b.write(0x280, 0);
  assertEquals(b.read(0x280), 0xc0);
  // SELF IPI in x2APIC mode; no #GP.
  b.write(0x370, 0xfb);
  toX2apic(b);
  assertEquals(b.wrmsr(0x83f, 9), true);
  b.wrmsr(0x828, 0);
  assertEquals(b.rdmsr(0x828), 0x20n);
});

Deno.test("a message that nobody accepts is AMD's send accept error", () => {
  for (const [vendor, esr] of [["amd", 4], ["intel", 0]] as const) {
    using b = board({ vendor });
    b.write(0x310, 0x0700_0000);
    b.write(0x300, 0x4031);
    b.write(0x280, 0);
    assertEquals(b.read(0x280), esr);
  }
});

/** An xAPIC's ICR: the destination, the low half, and who of four gets it when the first sends. */
const XAPIC_IPIS: readonly (readonly [dest: number, low: number, who: string])[] = [
  [0x02, 0x0_4031, "2"],
  [0x00, 0x0_4031, "0"],
  [0x07, 0x0_4031, ""],
  [0xff, 0x0_4031, "0123"],
  [0x02, 0x4_4031, "0"],
  [0x02, 0x8_4031, "0123"],
  [0x02, 0xc_4031, "123"],
  [0x02, 0xc_4831, "123"],
  // Logical, flat: a bit for each.
  [0x01, 0x0_4831, "0"],
  [0x06, 0x0_4831, "12"],
  [0xff, 0x0_4831, "0123"],
  [0x10, 0x0_4831, ""],
  // Level-triggered and asserted; not asserted.
  [0x02, 0x0_c031, "2"],
  [0x02, 0x0_8031, ""],
];

Deno.test("xAPIC destinations and shorthands", () => {
  for (const [dest, low, expected] of XAPIC_IPIS) {
    using b = board({ cpus: 4 });
    for (let k = 0; k < 4; k++) b.write(0xd0, 1 << (24 + k), k);
    b.write(0x310, dest << 24);
    b.write(0x300, low);
    assertEquals([dest, low, who(b)], [dest, low, expected]);
    // The delivery status is always idle.
    assertEquals(b.read(0x300) & 0x1000, 0);
  }
});

Deno.test("xAPIC cluster model", () => {
  const ids = [0x11, 0x12, 0x21, 0x24];
  const rows = [[0x11, "0"], [0x13, "01"], [0x25, "23"], [0x2f, "23"], [0x31, ""], [0xff, "0123"]];
  for (const [dest, expected] of rows as [number, string][]) {
    using b = board({ cpus: 4 });
    for (const [k, id] of ids.entries()) {
      b.write(0xe0, 0x0fff_ffff, k);
      b.write(0xd0, id << 24, k);
    }
    b.write(0x310, dest << 24);
    b.write(0x300, 0x4831);
    assertEquals([dest, who(b)], [dest, expected]);
  }
});

Deno.test("x2APIC: logical IDs follow from APIC IDs", () => {
  const rows = [[0, 0x1], [1, 0x2], [15, 0x8000], [16, 0x1_0001], [255, 0xf_8000]];
  for (const [id, ldr] of [...rows, [0x1_2345, 0x1234_0020], [4095, 0xff_8000]]) {
    assertEquals(extendedLogicalId(id as number), ldr);
  }
});

Deno.test("x2APIC destinations", () => {
  const cpus = [0, 1, 16, 300];
  const rows = [
    [16, 0x4031, "2"],
    [300, 0x4031, "3"],
    [300 & 0xff, 0x4031, ""],
    [0xff, 0x4031, ""],
    [0xffff_ffff, 0x4031, "0123"],
    [0xffff_ffff, 0x4831, "0123"],
    [0x3, 0x4831, "01"],
    [0x1_0001, 0x4831, "2"],
    [0x12_1000, 0x4831, "3"],
    [0x12_0fff, 0x4831, ""],
    [0, 0xc_4031, "123"],
    [0, 0x8_4031, "0123"],
    [0, 0x4_4031, "0"],
  ];
  for (const [dest, low, expected] of rows as [number, number, string][]) {
    using b = board({ cpus });
    for (const k of cpus.keys()) toX2apic(b, k);
    assertEquals(b.wrmsr(0x830, low, dest), true);
    assertEquals([dest, low, who(b)], [dest, low, expected]);
  }
});

Deno.test("x2APIC: SELF IPI", () => {
  using b = board({ cpus: 2 });
  toX2apic(b);
  assertEquals([b.wrmsr(0x83f, 0x31), who(b)], [true, "0"]);
});

Deno.test("a broadcast of 8 bits reaches those in x2APIC mode, too", () => {
  using b = board({ cpus: 2 });
  toX2apic(b, 1);
  b.write(0x310, 0xff00_0000);
  b.write(0x300, 0x4031);
  assertEquals(who(b), "01");
});

Deno.test("lowest priority: lowest APR, then the highest ID; the focus processor before all", () => {
  using b = board({ cpus: 4 });
  const send = (): string => {
    b.write(0x310, 0xff00_0000);
    b.write(0x300, 0x4131);
    const got = who(b);
    for (const apic of b.apics) apic.registers.clearVector(0x200, 0x31);
    return got;
  };
  assertEquals(send(), "3");
  for (const [k, tpr] of [0x30, 0x20, 0x30, 0x40].entries()) b.write(0x80, tpr, k);
  assertEquals(send(), "1");
  b.write(0x80, 0x20, 2);
  assertEquals(send(), "2");
  // Focus: in service at the first, unless it does not check for that.
  b.apics[0]!.registers.setVector(0x100, 0x31);
  assertEquals(send(), "0");
  b.write(0xf0, 0x3ff, 0);
  assertEquals(send(), "2");
  // Those disabled by software take no part.
  b.write(0xf0, 0xff, 2);
  assertEquals(send(), "1");
});

Deno.test("message-signalled interrupts", () => {
  using b = board({ cpus: 4 });
  for (let k = 0; k < 4; k++) b.write(0xd0, 1 << (24 + k), k);
  const rows = [
    [0xfee0_2000, "2"],
    [0xfeef_f000, "0123"],
    [0xfee0_6004, "12"],
    [0xfee0_600c, "2"],
    [0xfee0_7000, ""],
  ];
  for (const [address, expected] of rows as [number, string][]) {
    assertEquals(b.vm.sendMsi(address, 0x31), expected !== "");
    assertEquals([address, who(b)], [address, expected]);
    for (const apic of b.apics) apic.registers.clearVector(0x200, 0x31);
  }
  assertEquals(b.vm.sendMsi(0xfed0_0000, 0x31), false);
});

Deno.test("NMI, INIT and SMI as IPIs; a de-asserted INIT does nothing", () => {
  using b = board({ cpus: 2 });
  b.write(0x310, 0x0100_0000);
  b.write(0x300, 0x4400);
  assertEquals(b.vcpus[1]!.events.nmiPending, 1);
  b.write(0x300, 0x8500);
  assertEquals(b.apics[1]!.initPending, false);
  b.write(0x300, 0x4500);
  b.write(0x300, 0x4608);
  assertEquals([b.apics[1]!.initPending, b.apics[1]!.startupVector], [true, 8]);
  // Lost without system management mode; the vendor's otherwise.
  b.write(0x300, 0x4200);
  const raised: number[] = [];
  Object.assign(b.vm.vendor.current, { raiseSmi: (vcpu: Vcpu) => raised.push(vcpu.id) });
  b.write(0x300, 0x4200);
  assertEquals(raised, [1]);
});

Deno.test("a start-up IPI that the vendor takes starts nothing", () => {
  for (const takes of [false, true]) {
    using b = board({ cpus: 2 });
    const asked: unknown[] = [];
    Object.assign(b.vm.vendor.current, {
      keepStartup: (vcpu: Vcpu, vector: number) => {
        asked.push([vcpu.id, vector]);
        return takes;
      },
    });
    const [, target] = b.vcpus;
    const [, apic] = b.apics;
    b.write(0x310, 0x0100_0000);
    b.write(0x300, 0x4500);
    acceptStartup(target!, apic!);
    assertEquals(target!.mpState, MpState.INIT_RECEIVED);
    b.write(0x300, 0x4608);
    acceptStartup(target!, apic!);
    assertEquals(asked, [[1, 8]]);
    assertEquals(target!.mpState, takes ? MpState.INIT_RECEIVED : MpState.RUNNABLE);
    assertEquals(apic!.startupVector, -1);
  }
});

Deno.test("an accelerator may take delivery over", () => {
  const taken: string[] = [];
  let active = true;
  const accelerator: Plugin = {
    name: "accelerator",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(deliverInterruptHook, ({ id }, vector) => {
        if (!active) return undefined;
        taken.push(`${id} ${vector}`);
        return true;
      });
    },
  };
  using b = board({ plugins: [accelerator] });
  const [vcpu] = b.vcpus;
  const [apic] = b.apics;
  vcpu!.clearRequest(eventRequest);
  apic!.accept(0x31, true);
  // TMR is set before, for the processor looks at it.
  assertEquals([taken, who(b), b.read(0x190)], [["0 49"], "", 0x2_0000]);
  assertEquals(vcpu!.hasRequest(eventRequest), false);
  active = false;
  apic!.accept(0x31, false);
  assertEquals([taken.length, who(b), vcpu!.hasRequest(eventRequest)], [1, "0", true]);
});

Deno.test("what hardware put into the page is replayed", () => {
  using b = board({ cpus: 2 });
  const [apic, other] = b.apics;
  const put = (offset: number, value: number): void => {
    apic!.registers.set(offset, value);
    apic!.replayWrite(offset);
  };
  put(0x310, 0x0100_0000);
  put(0x300, 0x5031);
  assertEquals([who(b), b.read(0x300)], ["1", 0x4031]);
  put(0x320, 0xffff_ffff);
  assertEquals(b.read(0x320), 0x3_00ff);
  put(0x380, 100);
  assertEquals(apic!.timer.count, 100);
  put(0xf0, 0xff);
  assertEquals([b.read(0x320), apic!.softwareEnabled], [0x3_00ff, false]);
  // Registers that hardware may not write are left alone.
  const version = b.read(0x30);
  apic!.replayWrite(0x30);
  assertEquals(b.read(0x30), version);
  assertEquals(other!.softwareEnabled, true);
});
