/** What holds of every hypervisor, whichever unit it uses. */
import { assertEquals } from "@std/assert";
import { createVmSync, hostMemorySlot, type Plugin, type Vm } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

interface Vendor {
  readonly name: string;
  readonly vendor: () => Plugin[];
  /** What it has taken of the host's memory, at least, when three vCPUs have run. */
  readonly pieces: number;
}

const VENDORS: readonly Vendor[] = [
  {
    name: "svm",
    vendor: () => [cpu(), svm()],
    // RAM; three VMCBs and register areas; both permission maps; the root of the nested tables.
    pieces: 10,
  },
  {
    name: "vmx",
    vendor: () => [cpu({ model: "sapphire-rapids" }), vmx()],
    // RAM; three VMCSs, register areas and MSR bitmaps; the VMXON region; the root of the tables.
    pieces: 12,
  },
];

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

for (const { name, vendor, pieces } of VENDORS) {
  Deno.test(`${name}: a VM of several vCPUs is taken apart in any order, and gives its memory back`, () => {
    const vm = createVmSync({ memory: 2 ** 21, cpus: 3, plugins: vendor() });
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
    assertEquals(new Set(given).size, given.length);
    assertEquals(given.length >= pieces, true);
  });

  Deno.test(`${name}: what is loaded finds x87 as firmware leaves it`, () => {
    // FNINIT's control word, and not RESET's: fnstcw [500h]; mov ax, [500h]; add al, ah; out F4h, al
    const code = [0xd9, 0x3e, 0x00, 0x05, 0xa1, 0x00, 0x05, 0x00, 0xe0, 0xe6, 0xf4];
    const plugins = [...vendor(), ports(() => {})];
    using vm = createVmSync({ memory: 2 ** 21, plugins, images: [flat(new Uint8Array(code))] });
    const end = vm.runSync({ instructions: 1000 });
    assertEquals(end.reason === "exit-code" ? end.code : end.reason, 0x7f + 0x03);
  });

  Deno.test(`${name}: an NMI that comes while one is handled is taken after the IRET`, () => {
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
    const plugins = [...vendor(), nmi];
    using vm = createVmSync({ memory: 2 ** 21, plugins, images: [flat(new Uint8Array(code))] });
    const end = vm.runSync({ instructions: 1000 });
    // 1, 11h, and 12h in the second one, before the main program goes on.
    assertEquals(end.reason === "exit-code" ? end.code : end.reason, 0x12);
  });
}
