/* Runs single vector instructions and reports what they leave: see record.ts.
 *
 * Input: u32 count, then cases of CASE_BYTES. Output: RESULT_BYTES for each. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct state {
  uint8_t ymm[3][32];
  uint64_t rax, rcx, rdx, flags;
  uint32_t mxcsr, pad;
  uint8_t memory[64];
};
struct test {
  uint8_t code[16];
  struct state state;
};
struct result {
  struct state state;
  uint32_t signal, pad;
};

extern void execute(struct state *state, void *code, void *memory);
__asm__(
    ".globl execute\n"
    "execute:\n"
    "  push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "  mov %rdi, %r15\n mov %rsi, %r14\n mov %rdx, %rdi\n"
    "  vmovdqu (%r15), %ymm0\n vmovdqu 32(%r15), %ymm1\n vmovdqu 64(%r15), %ymm2\n"
    "  mov 96(%r15), %rax\n mov 104(%r15), %rcx\n mov 112(%r15), %rdx\n"
    "  ldmxcsr 128(%r15)\n"
    "  pushq 120(%r15)\n popfq\n"
    "  call *%r14\n"
    "  pushfq\n popq 120(%r15)\n"
    "  stmxcsr 128(%r15)\n"
    "  mov %rax, 96(%r15)\n mov %rcx, 104(%r15)\n mov %rdx, 112(%r15)\n"
    "  vmovdqu %ymm0, (%r15)\n vmovdqu %ymm1, 32(%r15)\n vmovdqu %ymm2, 64(%r15)\n"
    "  vzeroupper\n cld\n"
    "  pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
    "  ret\n");

static sigjmp_buf back;
static volatile uint32_t caught, mxcsr;

static void handler(int signal, siginfo_t *info, void *context) {
  (void)info;
  ucontext_t *uc = context;
  caught = (uint32_t)signal;
  mxcsr = uc->uc_mcontext.fpregs->mxcsr;
  siglongjmp(back, 1);
}

int main(void) {
  uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint8_t *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED || memory == MAP_FAILED) return 1;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGFPE, &action, NULL);
  sigaction(SIGILL, &action, NULL);
  sigaction(SIGSEGV, &action, NULL);

  uint32_t count;
  if (fread(&count, 4, 1, stdin) != 1) return 1;
  for (uint32_t k = 0; k < count; k++) {
    struct test test;
    struct result result;
    if (fread(&test, sizeof test, 1, stdin) != 1) return 1;
    memset(&result, 0, sizeof result);
    memset(page, 0xcc, 64);
    uint8_t length = test.code[15];
    memcpy(page, test.code, length);
    page[length] = 0xc3;
    memcpy(memory, test.state.memory, 64);
    caught = 0;
    struct state state = test.state;
    if (sigsetjmp(back, 1) == 0) {
      execute(&state, page, memory);
    } else {
      uint32_t initial = 0x1f80;
      __asm__ volatile("ldmxcsr %0" ::"m"(initial));
      state = test.state;
      state.mxcsr = mxcsr;
    }
    memcpy(state.memory, memory, 64);
    result.state = state;
    result.signal = caught;
    if (fwrite(&result, sizeof result, 1, stdout) != 1) return 1;
  }
  return 0;
}
