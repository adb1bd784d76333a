import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  createVmSync,
  ExitReason,
  hostMemorySlot,
  type Plugin,
  PluginError,
  type Vm,
} from "../../core/mod.ts";
import { cpu, type CpuOptions } from "../cpu/mod.ts";
import { flat } from "../flat/mod.ts";
import { vmx } from "./mod.ts";

Deno.test("a VM of several vCPUs is taken apart in any order, and gives its memory back", () => {
  const vm = createVmSync({
    memory: 2 ** 21,
    cpus: 3,
    plugins: [cpu({ model: "sapphire-rapids" }), vmx()],
  });
  const host = vm.hostMemory.current;
  vm.runSync({ instructions: 1 });
  const given: number[] = [];
  const free = host.free.bind(host);
  host.free = (hpa) => {
    given.push(hpa);
    free(hpa);
  };
  vm.close();
  assertEquals(vm.slots.filled(hostMemorySlot), false);
  // RAM; three VMCSs, register areas and MSR bitmaps; the VMXON region; the root of the tables at least.
  assertEquals(new Set(given).size, given.length);
  assertEquals(given.length >= 12, true);
});

/** Port 80h does `action`, and port F4h ends the run with what is written to it. */
function ports(action: (vm: Vm) => void): Plugin {
  return {
    name: "ports",
    version: "1.0.0",
    setup(ctx) {
      ctx.registerPio({ name: "action", base: 0x80, length: 1, write: () => action(ctx.vm) });
      ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: (_offset, _size, code) => ctx.vm.stop({ reason: "exit-code", code }),
      });
    },
  };
}

Deno.test("an NMI that comes while one is handled is taken after the IRET", () => {
  const code = [
    ...[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70], // xor ax,ax; ds = ss = 0; sp = 7000h
    ...[0xc7, 0x06, 0x08, 0x00, 0x40, 0x7c, 0xa3, 0x0a, 0x00], // vector 2 is 0:7C40h
    ...[0x31, 0xdb, 0xe6, 0x80], // xor bx, bx; out 80h, al
    ...[0x88, 0xd8, 0xe6, 0xf4], // mov al, bl; out F4h, al
  ];
  while (code.length < 0x40) code.push(0x90);
  code.push(
    ...[0x43, 0x83, 0xfb, 0x01, 0x75, 0x05], // inc bx; cmp bx, 1; jne +5
    ...[0xe6, 0x80], // out 80h, al
    ...[0x80, 0xc3, 0x10], // add bl, 10h: still inside the first one
    ...[0xcf], // iret
  );
  const nmi = ports((vm) => vm.vcpus[0]!.events.queueNmi());
  const plugins = [cpu({ model: "sapphire-rapids" }), vmx(), nmi];
  using vm = createVmSync({ memory: 2 ** 21, plugins, images: [flat(new Uint8Array(code))] });
  const end = vm.runSync({ instructions: 1000 });
  // 1, 11h, and 12h in the second one, before the main program goes on.
  assertEquals(end.reason === "exit-code" ? end.code : end.reason, 0x12);
});

Deno.test("processors without VMX, or without a part that is needed, are refused by name", () => {
  const refused = (options: CpuOptions): string => {
    try {
      createVmSync({ memory: 2 ** 21, plugins: [cpu(options), vmx()] }).close();
    } catch (error) {
      return error instanceof PluginError ? error.message : String(error);
    }
    return "accepted";
  };
  assertStringIncludes(refused({ model: "zen4" }), "the processor has no VMX");
  const without = refused({ model: "haswell", features: { unrestricted_guest: false } });
  assertStringIncludes(without, "secondary controls 80h");
  assertEquals(refused({ model: "haswell" }), "accepted");
});

Deno.test("a VMCS that the processor refuses ends the run, and says with which error", () => {
  const plugins = [cpu({ model: "sapphire-rapids" }), vmx()];
  using vm = createVmSync({ memory: 2 ** 21, plugins });
  const [vcpu] = vm.vcpus;
  const state = vm.vendor.current.getSystemState(vcpu!);
  // Paging without protection is no state that a processor can be in.
  vm.vendor.current.setSystemState(vcpu!, { ...state, cr0: 0x8000_0010n });
  const end = vm.runSync({ instructions: 10 });
  assertEquals(end.reason, "error");
  const { exit } = vcpu!;
  assertEquals([exit.reason, exit.vendorCodeLo], [ExitReason.FAIL_ENTRY, 0x8000_0021]);
});
