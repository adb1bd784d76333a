/* Intel APX for an assembler that does not know it: macros for .S files. Registers are numbers, RAX 0 to
 * R31 31, in the order of instruction set references: destination first. Operands have 64 bits, memory
 * is [base + displacement] or [base + 8 * index + displacement]. (Intel APX architecture specification,
 * 3.1.1 for REX2, 3.1.2 for EVEX map 4.) */
#ifndef APX_H
#define APX_H

#define RAX 0
#define RCX 1
#define RDX 2
#define RBX 3
#define RSP 4
#define RBP 5
#define RSI 6
#define RDI 7

/* Opcodes with operands Gv,Ev. */
#define OP_ADD 0x03
#define OP_OR 0x0b
#define OP_AND 0x23
#define OP_SUB 0x2b
#define OP_XOR 0x33
#define OP_CMP 0x3b
#define OP_MOV 0x8b
#define OP_STORE 0x89 /* MOV Ev,Gv */
#define OP_LEA 0x8d
#define OP_IMUL 0xaf /* in map 1, and in map 4 */
#define OP_TEST 0x85
/* Opcode extensions of group 1 (81h, 83h) and of the shifts (C1h). */
#define EXT_ADD 0
#define EXT_OR 1
#define EXT_AND 4
#define EXT_SUB 5
#define EXT_XOR 6
#define EXT_CMP 7
#define EXT_ROL 0
#define EXT_ROR 1
#define EXT_SHL 4
#define EXT_SHR 5
/* Condition codes. */
#define CC_B 2
#define CC_AE 3
#define CC_E 4
#define CC_NE 5
#define CC_BE 6
#define CC_A 7
#define CC_L 12
#define CC_G 15
/* Default flags of conditional comparisons. */
#define DFV_OF 8
#define DFV_SF 4
#define DFV_ZF 2
#define DFV_CF 1

/* What is in EVEX besides registers. */
#define ND 0x10 /* a new destination */
#define NF 0x04 /* flags stay as they are */

#ifdef __ASSEMBLER__

.macro APX_MODRM reg, rm
  .byte 0xc0 | ((\reg) & 7) << 3 | ((\rm) & 7)
.endm
/* [base + displacement]: always with SIB and four bytes, so that any base will do. */
.macro APX_MEM reg, base, displacement=0
  .byte 0x84 | ((\reg) & 7) << 3, 0x20 | ((\base) & 7)
  .long \displacement
.endm
.macro APX_MEM8 reg, base, index, displacement=0
  .byte 0x84 | ((\reg) & 7) << 3, 0xc0 | ((\index) & 7) << 3 | ((\base) & 7)
  .long \displacement
.endm

/* D5, then M0 R4 X4 B4 W R3 X3 B3. */
.macro APX_REX2 map, w, reg, index, base
  .byte 0xd5, (\map) << 7 | ((\reg) >> 4 & 1) << 6 | ((\index) >> 4 & 1) << 5 | ((\base) >> 4 & 1) << 4 | (\w) << 3 | ((\reg) >> 3 & 1) << 2 | ((\index) >> 3 & 1) << 1 | ((\base) >> 3 & 1)
.endm
/* 62, then ~R3 ~X3 ~B3 ~R4 B4 mmm, W ~V3-V0 ~X4 pp, and ND ~V4 with what `low` has. */
.macro APX_EVEX map, w, pp, low, reg, index, base, v
  .byte 0x62
  .byte (~(\reg) >> 3 & 1) << 7 | (~(\index) >> 3 & 1) << 6 | (~(\base) >> 3 & 1) << 5 | (~(\reg) >> 4 & 1) << 4 | ((\base) >> 4 & 1) << 3 | (\map)
  .byte (\w) << 7 | (~(\v) & 15) << 3 | (~(\index) >> 4 & 1) << 2 | (\pp)
  .byte (\low) | (~(\v) >> 4 & 1) << 3
.endm

/* REX2: `reg` op= `rm`, or what the opcode means. */
.macro rex2 op, reg, rm, map=0, w=1
  APX_REX2 \map, \w, \reg, 0, \rm
  .byte \op
  APX_MODRM \reg, \rm
.endm
.macro rex2_mem op, reg, base, displacement=0, map=0, w=1
  APX_REX2 \map, \w, \reg, 0, \base
  .byte \op
  APX_MEM \reg, \base, \displacement
.endm
.macro rex2_mem8 op, reg, base, index, displacement=0, map=0, w=1
  APX_REX2 \map, \w, \reg, \index, \base
  .byte \op
  APX_MEM8 \reg, \base, \index, \displacement
.endm
/* REX2: group 1 with an immediate of eight bits. */
.macro rex2_imm extension, rm, value
  APX_REX2 0, 1, 0, 0, \rm
  .byte 0x83
  APX_MODRM \extension, \rm
  .byte (\value) & 0xff
.endm

/* REX2: a shift or rotation by a constant. */
.macro rex2_shift extension, rm, count
  APX_REX2 0, 1, 0, 0, \rm
  .byte 0xc1
  APX_MODRM \extension, \rm
  .byte \count
.endm

/* EVEX map 4: `to` = `reg` op `rm`, with flags or (`nf`) without. */
.macro nd op, to, reg, rm, nf=0
  APX_EVEX 4, 1, 0, (ND|\nf), \reg, 0, \rm, \to
  .byte \op
  APX_MODRM \reg, \rm
.endm
.macro nd_mem op, to, reg, base, displacement=0, nf=0
  APX_EVEX 4, 1, 0, (ND|\nf), \reg, 0, \base, \to
  .byte \op
  APX_MEM \reg, \base, \displacement
.endm
/* `to` = `rm` op an immediate of eight bits. */
.macro nd_imm extension, to, rm, value, nf=0
  APX_EVEX 4, 1, 0, (ND|\nf), 0, 0, \rm, \to
  .byte 0x83
  APX_MODRM \extension, \rm
  .byte (\value) & 0xff
.endm
/* `to` = `rm` shifted. */
.macro nd_shift extension, to, rm, count, nf=0
  APX_EVEX 4, 1, 0, (ND|\nf), 0, 0, \rm, \to
  .byte 0xc1
  APX_MODRM \extension, \rm
  .byte \count
.endm
/* Two operands, no flags: `reg` op= `rm`. */
.macro nf op, reg, rm
  APX_EVEX 4, 1, 0, NF, \reg, 0, \rm, 0
  .byte \op
  APX_MODRM \reg, \rm
.endm
.macro nf_imm extension, rm, value
  APX_EVEX 4, 1, 0, NF, 0, 0, \rm, 0
  .byte 0x83
  APX_MODRM \extension, \rm
  .byte (\value) & 0xff
.endm

/* If the condition holds, the flags of CMP of `rm` and an immediate, else `flags`. */
.macro ccmp_imm condition, flags, rm, value
  .byte 0x62
  .byte 0xd4 | (~(\rm) >> 3 & 1) << 5 | ((\rm) >> 4 & 1) << 3
  .byte 0x80 | (\flags) << 3 | 4
  .byte \condition
  .byte 0x83
  APX_MODRM EXT_CMP, \rm
  .byte (\value) & 0xff
.endm
/* `reg` = the memory operand if the condition holds, else 0 and no access. */
.macro cfcmov_mem condition, reg, base, displacement=0
  APX_EVEX 4, 1, 0, 0, \reg, 0, \base, 0
  .byte 0x40 | (\condition)
  APX_MEM \reg, \base, \displacement
.endm
/* `to` = `rm` if the condition holds, else `reg`. */
.macro nd_cmov condition, to, reg, rm
  APX_EVEX 4, 1, 0, ND, \reg, 0, \rm, \to
  .byte 0x40 | (\condition)
  APX_MODRM \reg, \rm
.endm
/* `rm` = 1 if the condition holds, else 0. */
.macro setzu condition, rm
  APX_EVEX 4, 0, 3, ND, 0, 0, \rm, 0
  .byte 0x40 | (\condition)
  APX_MODRM 0, \rm
.endm
/* Pushes `first`, then `second`; the stack pointer is a multiple of 16. */
.macro push2 first, second
  APX_EVEX 4, 0, 0, ND, 6, 0, \second, \first
  .byte 0xff
  APX_MODRM 6, \second
.endm
/* Pops `first`, then `second`. */
.macro pop2 first, second
  APX_EVEX 4, 0, 0, ND, 0, 0, \second, \first
  .byte 0x8f
  APX_MODRM 0, \second
.endm
/* MSR_IMM: RDMSR and WRMSRNS with the number of the MSR in the instruction. */
.macro rdmsr_imm register, msr
  APX_EVEX 7, 0, 3, 0, 0, 0, \register, 0
  .byte 0xf6
  APX_MODRM 0, \register
  .long \msr
.endm
.macro wrmsrns_imm msr, register
  APX_EVEX 7, 0, 2, 0, 0, 0, \register, 0
  .byte 0xf6
  APX_MODRM 0, \register
  .long \msr
.endm

#endif
#endif
