/**
 * What a VMX guest may not do: bitmaps of ports, MSRs and VMCS fields, and the information that VM exits
 * give about an instruction (SDM vol. 3, 25.6.4, 25.6.9, 25.6.15, 28.2.5).
 *
 * @module
 */
import { MicroOp } from "../engine/block_layout.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64 } from "../wasm/mod.ts";
import { Primary } from "./controls.ts";
import { readField, Vmcs } from "./fields.ts";

/** Offsets in the MSR bitmap: of the high range, and of the part for writes. */
const HIGH_MSRS = 0x400;
const WRITES = 0x800;

/** The byte at a physical address. */
function byteAt(f: FunctionBuilder, mc: Microcode, pa: I64): I32 {
  const address = f.call(mc.physical, pa);
  // Where there is no memory all bits read as ones.
  return f.choose(I32T, address.ne(0), () => f.load8(address), () => 0xff);
}

/** Gives the functions their bodies. */
export function defineIntercepts(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.vmxPortIntercepted, (f, port, bytes) => {
    const primary = S.primaryControls.get(f);
    f.if(primary.and(Primary.IO_BITMAPS).eqz(), () => {
      f.return(primary.and(Primary.UNCONDITIONAL_IO).ne(0));
    });
    // An access that wraps around the port space exits.
    f.if(port.add(bytes).gtU(0x1_0000), () => f.return(1));
    const k = f.variable(I32T, 0);
    f.while(() => k.get().ltU(bytes), () => {
      const one = port.add(k.get());
      const bitmap = one.shrU(15).select(
        readField(f, Vmcs.IO_BITMAP_B),
        readField(f, Vmcs.IO_BITMAP_A),
      );
      const byte = byteAt(f, mc, bitmap.add(one.and(0x7fff).shrU(3).extendU()));
      f.if(byte.shrU(one.and(7)).and(1), () => f.return(1));
      k.set(k.get().add(1));
    });
    f.return(0);
  });

  module.body(mc.vmxMsrIntercepted, (f, index, write) => {
    f.if(S.primaryControls.has(f, Primary.MSR_BITMAPS).eqz(), () => f.return(1));
    const high = index.and(~0x1fff);
    const isHigh = high.eq(0xc000_0000);
    f.if(high.ne(0).and(isHigh.eqz()), () => f.return(1));
    const part = isHigh.select(i32(HIGH_MSRS), i32(0)).or(write.select(i32(WRITES), i32(0)));
    const low = index.and(0x1fff);
    const at = readField(f, Vmcs.MSR_BITMAP).add(part.add(low.shrU(3)).extendU());
    f.return(byteAt(f, mc, at).shrU(low.and(7)).and(1));
  });

  // Bits 14:0 of the encoding are the number of the bit; any other bit set always exits.
  module.body(mc.vmcsFieldIntercepted, (f, encoding, write) => {
    f.if(encoding.has(~0x7fffn), () => f.return(1));
    const bitmap = write.select(
      readField(f, Vmcs.VMWRITE_BITMAP),
      readField(f, Vmcs.VMREAD_BITMAP),
    );
    const low = encoding.wrap();
    f.return(byteAt(f, mc, bitmap.add(low.shrU(3).extendU())).shrU(low.and(7)).and(1));
  });

  /** Number of the base or index register, and 1 if there is none. */
  const register = (f: FunctionBuilder, uop: I32, field: number): readonly [I32, I32] => {
    const address = f.load16(uop, field);
    return [address.sub(S.registers).shrU(3).and(31), address.eq(S.zero)];
  };

  // 1:0 scale, 9:7 address size, 17:15 segment, 21:18 index, 22 no index, 26:23 base, 27 no base. Of R16
  // to R31 the four low bits are there: whoever knows them reads the extended field.
  module.body(mc.memoryInformation, (f, uop) => {
    const addressing = f.load8(uop, MicroOp.ADDRESSING);
    const place = (field: number, shift: number): I32 => {
      const [number, none] = register(f, uop, field);
      return none.select(i32(0x10), number.and(15)).shl(shift);
    };
    f.return(
      addressing.and(3)
        .or(addressing.shrU(2).and(3).shl(7))
        .or(addressing.shrU(4).and(7).shl(15))
        .or(place(MicroOp.INDEX_REG, 18))
        .or(place(MicroOp.BASE, 23)),
    );
  });

  // 1:0 scale, 3:2 address size, 9:7 segment, 10 no index, 11 no base, 28:24 index, 36:32 base.
  module.body(mc.extendedMemoryInformation, (f, uop) => {
    const addressing = f.load8(uop, MicroOp.ADDRESSING);
    const place = (field: number, shift: number, noneBit: number): I64 => {
      const [number, none] = register(f, uop, field);
      return none.select(i64(noneBit), number.extendU().shl(shift));
    };
    f.return(
      addressing.and(0xf).or(addressing.shrU(4).and(7).shl(7)).extendU()
        .or(place(MicroOp.INDEX_REG, 24, 0x400))
        .or(place(MicroOp.BASE, 32, 0x800)),
    );
  });
}
