import { assertEquals } from "@std/assert";
import type { RecentEvent } from "../cpu/mod.ts";
import { undelivered } from "./chain.ts";
import { CODE, type LongGuest, longGuest, PD, STACK } from "./fixture_test.ts";
import { GuestView } from "./guest_view.ts";
import { codeHints, faultHints } from "./hints.ts";

function hintsFor(
  fields: Partial<RecentEvent>,
  prepare: (guest: LongGuest) => void = () => {},
): string[] {
  using guest = longGuest({ memory: 8 * 2 ** 20 });
  guest.vm.memory.write(CODE, new Uint8Array([0x90]));
  prepare(guest);
  const view = new GuestView(guest.vcpu);
  const event: RecentEvent = {
    vector: 14,
    type: "exception",
    errorCode: 2,
    rip: BigInt(CODE),
    cr2: 0n,
    delivered: false,
    ...fields,
  };
  const [first] = undelivered(view, [event]);
  return faultHints(view, first!);
}

const unmap = ({ vm }: LongGuest, gpa: number) => vm.memory.writeU64(PD + 8 * (gpa >> 21), 0n);

Deno.test("a null pointer, and a field of one", () => {
  const high = ({ vcpu }: LongGuest) => void (vcpu.regs.rsp = 0x30_0000n);
  assertEquals(hintsFor({ cr2: 0n }, high), ["CR2 is in the first page: a null pointer."]);
  assertEquals(hintsFor({ cr2: 0x18n }, high), [
    "CR2 is in the first page: a null pointer, or a field 18h bytes behind one.",
  ]);
  assertEquals(hintsFor({ cr2: 0x1000n }, high), []);
  // A jump through one is an instruction fetch, and said as such already.
  assertEquals(hintsFor({ cr2: 0n, rip: 0n, errorCode: 16 }, high), []);
});

Deno.test("a stack that has run out of its pages", () => {
  assertEquals(
    hintsFor({ cr2: 0x3f_fff8n }, (guest) => {
      guest.vcpu.regs.rsp = 0x40_0000n;
      unmap(guest, 0x20_0000);
    }),
    ["CR2 is right below RSP: the stack has run out of its pages."],
  );
  assertEquals(
    hintsFor({ cr2: 0x3f_fe00n }, (guest) => {
      guest.vcpu.regs.rsp = 0x3f_fe00n;
      unmap(guest, 0x20_0000);
    }),
    ["CR2 is where RSP is: the stack has run out of its pages, or was never set up."],
  );
  // A page that is there but read-only is something else.
  const near = BigInt(STACK) - 8n;
  assertEquals(hintsFor({ cr2: near, errorCode: 3 }), []);
});

Deno.test("registers that hold no address", () => {
  const load = [0x48, 0x8b, 0x04, 0xfb]; // mov rax, [rbx+rdi*8]
  const prepare = ({ vm, vcpu }: LongGuest) => {
    vm.memory.write(CODE, new Uint8Array(load));
    vcpu.regs.rbx = 0x0dea_d000_0000_0100n;
    vcpu.regs.rdi = 1n;
  };
  const fault = { vector: 13, errorCode: 0 };
  assertEquals(hintsFor(fault, prepare), [
    "RBX holds dead00000000100h, which is not canonical and no address.",
  ]);
  assertEquals(
    hintsFor(fault, (guest) => {
      prepare(guest);
      guest.vcpu.regs.rbx = 0xffff_8000_0000_0000n;
    }),
    [],
  );
});

Deno.test("an IDT without a gate", () => {
  const none = ({ system }: LongGuest) => void (system.idt = { base: 0n, limit: 0 });
  assertEquals(hintsFor({ vector: 6, errorCode: undefined }, none), [
    "The IDT has room for no gate (limit 0h): no LIDT has loaded one.",
  ]);
});

Deno.test("code that is nothing but zeros", () => {
  using guest = longGuest();
  const view = new GuestView(guest.vcpu);
  assertEquals(codeHints(view), [
    "There is nothing but zeros at RIP: execution has left the program.",
  ]);
  guest.vm.memory.writeU8(CODE + 15, 1);
  assertEquals(codeHints(view), []);
});
