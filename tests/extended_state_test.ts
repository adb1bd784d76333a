/**
 * x87 and SSE state of a vCPU at RESET, under each hypervisor and on the bare processor.
 */
import { assertEquals } from "@std/assert";
import { createVmSync, type Plugin } from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const HOSTS: readonly (readonly [string, CpuModel, () => Plugin])[] = [
  ["metal", "zen4", metal],
  ["svm", "zen4", svm],
  ["vmx", "sapphire-rapids", vmx],
];

/** Legacy region and header of an XSAVE area. */
const AREA_BYTES = 576;

for (const [name, model, vendor] of HOSTS) {
  Deno.test(`${name}: x87 and SSE state at RESET is what the manuals say`, () => {
    using vm = createVmSync({ memory: 2 ** 20, plugins: [cpu({ model }), vendor()] });
    const [vcpu] = vm.vcpus;
    const { current } = vm.vendor;
    const check = (): void => {
      const area = current.getXsave(vcpu!).subarray(0, AREA_BYTES);
      const view = new DataView(area.buffer, area.byteOffset, area.byteLength);
      // SDM vol. 3, table 10-1: FCW 40h, FSW 0, all registers zero and not empty; MXCSR 1F80h.
      assertEquals([view.getUint16(0, true), view.getUint16(2, true), area[4]], [0x40, 0, 0xff]);
      assertEquals(view.getUint32(24, true), 0x1f80);
      assertEquals(area.subarray(32, 416).every((byte) => byte === 0), true);
    };
    check();
    const other = current.getXsave(vcpu!);
    other.fill(0x11, 32, 416);
    other[0] = 0x7f;
    other[512] = 3;
    current.setXsave(vcpu!, other);
    // INIT leaves it alone (same table), RESET does not.
    current.resetVcpu(vcpu!, true);
    assertEquals([current.getXsave(vcpu!)[0], current.getXsave(vcpu!)[160]], [0x7f, 0x11]);
    current.resetVcpu(vcpu!, false);
    check();
  });
}

for (const [name, model, vendor] of HOSTS) {
  Deno.test(`${name}: XSAVE areas carry YMM registers and PKRU, and CPUID says where`, () => {
    using vm = createVmSync({ memory: 2 ** 20, plugins: [cpu({ model }), vendor()] });
    const [vcpu] = vm.vcpus;
    const { eax: size, ebx: place } = vm.cpuid(0xd, 2, vcpu!);
    assertEquals([size, place], [256, 576]);
    const { eax: components, ecx: all } = vm.cpuid(0xd, 0, vcpu!);
    assertEquals([components, all], [0x207, 840]);
    const { eax: pkruSize, ebx: pkruPlace } = vm.cpuid(0xd, 9, vcpu!);
    assertEquals([pkruSize, pkruPlace], [8, 832]);
    const { current } = vm.vendor;
    const area = current.getXsave(vcpu!);
    for (let k = 0; k < size; k++) area[place + k] = k;
    area.set([0x54, 0x55, 0x55, 0x55], pkruPlace);
    area.set([7, 2], 512);
    current.setXsave(vcpu!, area);
    assertEquals(current.getXsave(vcpu!).subarray(place), area.subarray(place));
    // An area without them clears them.
    current.setXsave(vcpu!, area.slice(0, AREA_BYTES));
    const cleared = current.getXsave(vcpu!).subarray(place);
    assertEquals(cleared.every((byte) => byte === 0), true);
  });
}
