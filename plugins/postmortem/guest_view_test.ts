import { assertEquals, assertStringIncludes } from "@std/assert";
import { CODE, type LongGuest, longGuest, PD, PDPT, PML4, toUser } from "./fixture_test.ts";
import { type CpuMode, GuestView } from "./guest_view.ts";

function viewOf(prepare: (guest: LongGuest) => void = () => {}): GuestView {
  const guest = longGuest();
  prepare(guest);
  return new GuestView(guest.vcpu);
}

Deno.test("modes", () => {
  const modes: [CpuMode, (guest: LongGuest) => void][] = [
    ["64-bit mode", () => {}],
    ["32-bit compatibility mode", ({ system }) => void (system.cs.attributes = 0xc9b)],
    ["16-bit compatibility mode", ({ system }) => void (system.cs.attributes = 0x89b)],
    ["real mode", ({ system }) => void (system.cr0 = 0x10n)],
    ["32-bit protected mode", ({ system }) => {
      system.efer = 0x100n;
      system.cs.attributes = 0xc9b;
    }],
    ["16-bit protected mode", ({ system }) => {
      system.efer = 0n;
      system.cs.attributes = 0x9b;
    }],
    ["virtual-8086 mode", ({ system, vcpu }) => {
      system.efer = 0n;
      vcpu.regs.rflags = 0x2_0002n;
    }],
  ];
  for (const [mode, prepare] of modes) assertEquals(viewOf(prepare).mode, mode);
  assertEquals(viewOf(toUser).cpl, 3);
});

Deno.test("RIP and RSP are linear addresses", () => {
  const real = viewOf(({ system, vcpu }) => {
    system.cr0 = 0x10n;
    system.efer = 0n;
    system.cs.base = 0xffff_0000n;
    system.ss = { selector: 0x100, base: 0x1000n, limit: 0xffff, attributes: 0x93 };
    vcpu.regs.rip = 0xfff0n;
    vcpu.regs.rsp = 0xdead_0010n;
  });
  assertEquals([real.rip, real.rsp, real.width], [0xffff_fff0n, 0x1010n, 2]);
  const flat = viewOf(({ system, vcpu }) => {
    system.cs.base = 0x1000n; // does not count in 64-bit mode
    vcpu.regs.rip = 0xffff_8000_0000_0010n;
  });
  assertEquals([flat.rip, flat.width], [0xffff_8000_0000_0010n, 8]);
});

Deno.test("bytes are read page by page, as far as they are there", () => {
  const view = viewOf(({ vm }) => {
    vm.memory.write(0x1f_fffe, new Uint8Array([0xaa, 0xbb, 0xcc]));
    vm.memory.writeU64(PD + 8, 0n);
  });
  assertEquals(view.bytes(0x1f_fffdn, 5), [0, 0xaa, 0xbb, null, null]);
  assertEquals(view.read(0x1f_fffen, 2), 0xbbaan);
  assertEquals(view.read(0x1f_ffffn, 2), undefined);
  assertEquals(view.bytes(0x40_0000n - 1n, 2), [null, null]);
  // From the last byte to the first.
  assertEquals(view.bytes(0xffff_ffff_ffff_ffffn, 2), [null, 0]);
  // Mapped, but there is no memory.
  assertEquals(view.bytes(0x80_0000n, 1), [null]);
});

Deno.test("why an address cannot be reached", () => {
  const problem = (
    linear: bigint,
    access: Parameters<GuestView["problem"]>[1],
    prepare?: (guest: LongGuest) => void,
  ) => viewOf(prepare).problem(linear, access);
  assertEquals(problem(BigInt(CODE), {}), undefined);
  assertEquals(problem(1n << 47n, {}), "800000000000h is not canonical");
  assertEquals(problem(1n << 39n, {}), "PML4E at 6008h is 0");
  assertEquals(problem(1n << 30n, {}), "PDPE at 7008h is 0");
  const entry = (at: number, value: bigint) => ({ vm }: LongGuest) => vm.memory.writeU64(at, value);
  assertEquals(problem(0n, {}, entry(PD, 0x1234_0086n)), "PDE at 8000h is 12340086h, not present");
  assertEquals(
    problem(0n, {}, entry(PML4, 0x80_0007n)),
    "no memory where its PDPE at 800000h would be",
  );
  assertEquals(
    problem(0n, { user: true }, entry(PML4, BigInt(PDPT) | 3n)),
    "PML4E at 6000h is for the supervisor only",
  );
  assertEquals(
    problem(0n, { write: true }, entry(PDPT, BigInt(PD) | 5n)),
    "PDPE at 7000h is read-only",
  );
  assertEquals(
    problem(0n, { fetch: true }, entry(PD, 1n << 63n | 0x87n)),
    "PDE at 8000h is no-execute",
  );
  assertEquals(problem(0n, { fetch: false }, entry(PD, 1n << 63n | 0x87n)), undefined);
  const open = (guest: LongGuest) => {
    entry(PDPT, BigInt(PD) | 5n)(guest);
    guest.system.cr0 &= ~0x1_0000n;
  };
  assertEquals(problem(0n, { write: true }, open), undefined);
  assertEquals(problem(0n, { write: true, user: true }, open), "PDPE at 7000h is read-only");
  assertStringIncludes(problem(0x80_0000n, {}) ?? "", "gpa 800000h, where no memory is");
});

Deno.test("tables of 4-byte entries may end where memory ends", () => {
  const view = viewOf(({ system, vm }) => {
    system.efer = 0n;
    system.cr4 = 0x10n;
    system.cr3 = 0x3f_f000n;
    vm.memory.writeU32(0x3f_fffc, 0x83);
  });
  const walk = view.walk(0xffc0_1234n);
  assertEquals(walk.steps, [{ name: "PDE", address: 0x3f_fffc, entry: 0x83n }]);
  assertEquals(walk.address, 0x1234);
});
