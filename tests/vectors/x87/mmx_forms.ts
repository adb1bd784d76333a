/**
 * The MMX instructions that are recorded. They work on MM0–MM7, which the records hold as x87 registers.
 *
 * @module
 */
import { Record, writing } from "./layout.ts";

/** An instruction, or a few around one that needs a general-purpose register. */
interface MmxForm {
  /** As in an assembler. */
  readonly name: string;
  /** Its bytes. */
  readonly code: readonly number[];
  /** An operand is the count of a shift. */
  readonly counted?: boolean;
  /** The memory operand has numbers of so many bits. */
  readonly floats?: 32 | 64;
}

/** ModRM of MM2 and MM5. */
const REGISTERS = 0xd5;
/** ModRM of MM2 and the memory operand of the record that is read, with its displacement. */
const MEMORY: readonly number[] = [0x53, Record.MEMORY];

/** Opcodes behind 0F of instructions with a register and a register or memory. */
const BINARY: Readonly<Record<string, number>> = {
  punpcklbw: 0x60,
  punpcklwd: 0x61,
  punpckldq: 0x62,
  packsswb: 0x63,
  pcmpgtb: 0x64,
  pcmpgtw: 0x65,
  pcmpgtd: 0x66,
  packuswb: 0x67,
  punpckhbw: 0x68,
  punpckhwd: 0x69,
  punpckhdq: 0x6a,
  packssdw: 0x6b,
  movq: 0x6f,
  pcmpeqb: 0x74,
  pcmpeqw: 0x75,
  pcmpeqd: 0x76,
  paddq: 0xd4,
  pmullw: 0xd5,
  psubusb: 0xd8,
  psubusw: 0xd9,
  pminub: 0xda,
  pand: 0xdb,
  paddusb: 0xdc,
  paddusw: 0xdd,
  pmaxub: 0xde,
  pandn: 0xdf,
  pavgb: 0xe0,
  pavgw: 0xe3,
  pmulhuw: 0xe4,
  pmulhw: 0xe5,
  psubsb: 0xe8,
  psubsw: 0xe9,
  pminsw: 0xea,
  por: 0xeb,
  paddsb: 0xec,
  paddsw: 0xed,
  pmaxsw: 0xee,
  pxor: 0xef,
  pmuludq: 0xf4,
  pmaddwd: 0xf5,
  psadbw: 0xf6,
  psubb: 0xf8,
  psubw: 0xf9,
  psubd: 0xfa,
  psubq: 0xfb,
  paddb: 0xfc,
  paddw: 0xfd,
  paddd: 0xfe,
};
/** Opcodes behind 0F 38: SSSE3. */
const SSSE3: Readonly<Record<string, number>> = {
  pshufb: 0x00,
  phaddw: 0x01,
  phaddd: 0x02,
  phaddsw: 0x03,
  pmaddubsw: 0x04,
  phsubw: 0x05,
  phsubd: 0x06,
  phsubsw: 0x07,
  psignb: 0x08,
  psignw: 0x09,
  psignd: 0x0a,
  pmulhrsw: 0x0b,
  pabsb: 0x1c,
  pabsw: 0x1d,
  pabsd: 0x1e,
};
/** Shifts: opcode with the count in a register, opcode and digit with a constant. */
const SHIFTS: Readonly<Record<string, readonly [number, number, number]>> = {
  psrlw: [0xd1, 0x71, 2],
  psraw: [0xe1, 0x71, 4],
  psllw: [0xf1, 0x71, 6],
  psrld: [0xd2, 0x72, 2],
  psrad: [0xe2, 0x72, 4],
  pslld: [0xf2, 0x72, 6],
  psrlq: [0xd3, 0x73, 2],
  psllq: [0xf3, 0x73, 6],
};
const COUNTS: readonly number[] = [0, 1, 7, 15, 16, 31, 32, 63, 64, 255];

/** Loads RAX from the record that is read, and stores it in the one that is written. */
const LOAD_RAX: readonly number[] = [0x48, 0x8b, 0x43, Record.MEMORY];
const STORE_RAX: readonly number[] = [0x48, 0x89, 0x45, Record.MEMORY];

/** Loads XMM3 from the record that is read, and stores it in the one that is written. */
const LOAD_XMM3: readonly number[] = [0x0f, 0x10, 0x5b, Record.MEMORY];
const STORE_XMM3: readonly number[] = [0x0f, 0x11, 0x5d, Record.MEMORY];

/** All of them. */
export const MMX_FORMS: readonly MmxForm[] = [
  ...Object.entries(BINARY).flatMap(([name, opcode]): MmxForm[] => [
    { name: `${name} mm2, mm5`, code: [0x0f, opcode, REGISTERS] },
    { name: `${name} mm2, m64`, code: [0x0f, opcode, ...MEMORY] },
  ]),
  ...Object.entries(SHIFTS).flatMap(([name, [opcode, constant, digit]]): MmxForm[] => [
    { name: `${name} mm2, mm5`, code: [0x0f, opcode, REGISTERS], counted: true },
    { name: `${name} mm2, m64`, code: [0x0f, opcode, ...MEMORY], counted: true },
    ...COUNTS.map((count): MmxForm => ({
      name: `${name} mm5, ${count}`,
      code: [0x0f, constant, 0xc5 | (digit << 3), count],
    })),
  ]),
  ...[0x00, 0x1b, 0x4e, 0xe4, 0xff].flatMap((constant): MmxForm[] => [
    { name: `pshufw mm2, mm5, ${constant}`, code: [0x0f, 0x70, REGISTERS, constant] },
    { name: `pshufw mm2, m64, ${constant}`, code: [0x0f, 0x70, ...MEMORY, constant] },
  ]),
  ...[0, 1, 2, 3, 7].flatMap((constant): MmxForm[] => [
    {
      name: `pinsrw mm2, eax, ${constant}`,
      code: [...LOAD_RAX, 0x0f, 0xc4, 0xd0, constant],
    },
    { name: `pinsrw mm2, m16, ${constant}`, code: [0x0f, 0xc4, ...MEMORY, constant] },
    {
      name: `pextrw eax, mm5, ${constant}`,
      code: [...LOAD_RAX, 0x0f, 0xc5, 0xc5, constant, ...STORE_RAX],
    },
  ]),
  { name: "movq m64, mm5", code: [0x0f, ...writing(0x7f, 5)] },
  { name: "movd m32, mm5", code: [0x0f, ...writing(0x7e, 5)] },
  { name: "movd mm2, m32", code: [0x0f, 0x6e, ...MEMORY] },
  { name: "movd mm2, eax", code: [...LOAD_RAX, 0x0f, 0x6e, 0xd0] },
  { name: "movq mm2, rax", code: [...LOAD_RAX, 0x48, 0x0f, 0x6e, 0xd0] },
  { name: "movd eax, mm5", code: [...LOAD_RAX, 0x0f, 0x7e, 0xe8, ...STORE_RAX] },
  { name: "movq rax, mm5", code: [0x48, 0x0f, 0x7e, 0xe8, ...STORE_RAX] },
  { name: "movntq m64, mm5", code: [0x0f, ...writing(0xe7, 5)] },
  { name: "pmovmskb eax, mm5", code: [...LOAD_RAX, 0x0f, 0xd7, 0xc5, ...STORE_RAX] },
  // push rdi; lea rdi, [rbp+MEMORY]; …; pop rdi
  {
    name: "maskmovq mm2, mm5",
    code: [0x57, 0x48, 0x8d, 0x7d, Record.MEMORY, 0x0f, 0xf7, 0xd5, 0x5f],
  },
  // movq2dq xmm3, mm5; movups [rbp+MEMORY], xmm3
  {
    name: "movq2dq xmm3, mm5",
    code: [0xf3, 0x0f, 0xd6, 0xdd, 0x0f, 0x11, 0x5d, Record.MEMORY],
  },
  // movups xmm3, [rbx+MEMORY]; movdq2q mm2, xmm3
  {
    name: "movdq2q mm2, xmm3",
    code: [0x0f, 0x10, 0x5b, Record.MEMORY, 0xf2, 0x0f, 0xd6, 0xd3],
  },
  { name: "emms", code: [0x0f, 0x77] },
  { name: "paddb mm2, mm5 with REX.RB", code: [0x45, 0x0f, 0xfc, REGISTERS] },
  ...Object.entries(SSSE3).flatMap(([name, opcode]): MmxForm[] => [
    { name: `${name} mm2, mm5`, code: [0x0f, 0x38, opcode, REGISTERS] },
    { name: `${name} mm2, m64`, code: [0x0f, 0x38, opcode, ...MEMORY] },
  ]),
  ...[0, 1, 5, 8, 11, 16, 200].map((count): MmxForm => ({
    name: `palignr mm2, mm5, ${count}`,
    code: [0x0f, 0x3a, 0x0f, REGISTERS, count],
  })),
  ...[[], [0x66]].flatMap((prefix): MmxForm[] => {
    const type = prefix.length === 0 ? "ps" : "pd";
    const floats = prefix.length === 0 ? 32 : 64;
    return [
      {
        name: `cvtpi2${type} xmm3, mm5`,
        code: [...LOAD_XMM3, ...prefix, 0x0f, 0x2a, 0xdd, ...STORE_XMM3],
      },
      {
        name: `cvtpi2${type} xmm3, m64`,
        code: [...LOAD_XMM3, ...prefix, 0x0f, 0x2a, 0x5b, Record.MEMORY, ...STORE_XMM3],
      },
      ...[["cvt", 0x2d] as const, ["cvtt", 0x2c] as const].flatMap(([name, opcode]): MmxForm[] => [
        {
          name: `${name}${type}2pi mm2, xmm3`,
          code: [...LOAD_XMM3, ...prefix, 0x0f, opcode, 0xd3],
          floats,
        },
        {
          name: `${name}${type}2pi mm2, m${2 * floats}`,
          code: [...prefix, 0x0f, opcode, ...MEMORY],
          floats,
        },
      ]),
    ];
  }),
];
