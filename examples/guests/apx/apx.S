/* The functions of work.h for a processor with APX. R16-R31 are nobody's across calls. */
#include "apx.h"

.text

/* a += b + [RSI + 8 * x], d = (d ^ a) rotated, and so on: no word of the state is ever in memory. */
.macro G a, b, c, d, x
  rex2_mem OP_ADD, \a, RSI, (8*\x)
  rex2 OP_ADD, \a, \b
  rex2 OP_XOR, \d, \a
  rex2_shift EXT_ROR, \d, 32
  rex2 OP_ADD, \c, \d
  rex2 OP_XOR, \b, \c
  rex2_shift EXT_ROR, \b, 24
  rex2_mem OP_ADD, \a, RSI, (8*\x+8)
  rex2 OP_ADD, \a, \b
  rex2 OP_XOR, \d, \a
  rex2_shift EXT_ROR, \d, 16
  rex2 OP_ADD, \c, \d
  rex2 OP_XOR, \b, \c
  rex2_shift EXT_ROR, \b, 63
.endm

/* void mix(uint64_t *state, const uint64_t *message, uint64_t rounds) */
mix:
  .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
  rex2_mem OP_MOV, \n, RDI, (8*(\n-16))
  .endr
1:
  G 16, 20, 24, 28, 0
  G 17, 21, 25, 29, 2
  G 18, 22, 26, 30, 4
  G 19, 23, 27, 31, 6
  G 16, 21, 26, 31, 8
  G 17, 22, 27, 28, 10
  G 18, 23, 24, 29, 12
  G 19, 20, 25, 30, 14
  dec %rdx
  jnz 1b
  .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
  rex2_mem OP_STORE, \n, RDI, (8*(\n-16))
  .endr
  ret

/* uint64_t words(const char *text, uint64_t length): one chain of comparisons, with no branch in it. */
words:
  xor %ecx, %ecx                 /* characters */
  xor %edx, %edx                 /* identifiers */
  rex2 OP_MOV, 17, RCX           /* whether the character before was inside */
1:
  movzbl (%rdi), %eax
  nd_imm EXT_SUB, 16, RAX, 0x30
  cmp $0x61, %rax
  ccmp_imm CC_AE, 0, RAX, 0x7a   /* from 'a' on, up to 'z'? then BE, else A */
  ccmp_imm CC_A, DFV_ZF, RAX, 0x5f /* no letter: '_'? E for both */
  ccmp_imm CC_NE, DFV_CF, 16, 9  /* neither: a digit? BE for all three */
  setzu CC_BE, 18
  nd_imm EXT_XOR, 19, 17, 1
  rex2 OP_AND, 19, 18
  rex2 OP_ADD, RCX, 18
  rex2 OP_ADD, RDX, 19
  rex2 OP_MOV, 17, 18
  inc %rdi
  dec %rsi
  jnz 1b
  nd_shift EXT_SHL, RAX, RDX, 32
  or %rcx, %rax
  ret

/* uint64_t list(const struct node *node): a null pointer is not followed, and not branched on either. */
list:
  xor %eax, %eax
1:
  rex2_mem OP_MOV, 16, RDI, 8
  add 16(%rdi), %rax
  rex2 OP_TEST, 16, 16
  cfcmov_mem CC_NE, 17, 16, 16
  rex2 OP_ADD, RAX, 17
  mov (%rdi), %rdi
  test %rdi, %rdi
  jnz 1b
  ret

/* uint64_t medians(const int64_t *numbers, uint64_t count): neither source of a CMOV is lost. */
medians:
  xor %eax, %eax
  rex2_mem OP_MOV, 16, RDI, 0
  rex2_mem OP_MOV, 17, RDI, 8
1:
  rex2_mem OP_MOV, 18, RDI, 16
  rex2 OP_CMP, 16, 17
  nd_cmov CC_L, 19, 17, 16       /* the lower */
  nd_cmov CC_L, 20, 16, 17       /* the higher */
  rex2 OP_CMP, 20, 18
  nd_cmov CC_L, 21, 18, 20
  rex2 OP_CMP, 19, 21
  nd_cmov CC_L, 22, 19, 21
  rex2 OP_ADD, RAX, 22
  rex2 OP_MOV, 16, 17
  rex2 OP_MOV, 17, 18
  add $8, %rdi
  dec %rsi
  jnz 1b
  ret

/* uint64_t tree(const struct node *node, uint64_t depth): pairs of registers are saved at once. */
tree:
  test %rdi, %rdi
  jnz 1f
  mov %rsi, %rax
  ret
1:
  push %r12                      /* RSP is a multiple of 16 from here on */
  push2 RBX, RBP
  mov %rdi, %rbx
  mov %rsi, %rbp
  mov (%rbx), %rdi
  inc %rsi
  call tree
  mov %rax, %r12
  mov 8(%rbx), %rdi
  nd_imm EXT_ADD, RSI, RBP, 1, NF
  call tree
  lea (%r12,%rax,2), %rax
  add 16(%rbx), %rax
  xor %rbp, %rax
  pop2 RBP, RBX
  pop %r12
  ret

.section .rodata.apx, "a"
name:
  .asciz "apx"
  .balign 8
.global apx
apx:
  .quad name, mix, words, list, medians, tree
