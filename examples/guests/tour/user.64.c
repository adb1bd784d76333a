/* Ring 3: there by IRETQ and by SYSRET, system calls, and everything that is not allowed there. */
#include "user.h"

#include "check.h"
#include "console.h"
#include "cpu.h"
#include "paging.h"
#include "selectors.h"
#include "string.h"
#include "tour64.h"
#include "traps.h"

/* Linear addresses of ring 3. */
#define USER_TEXT 0x0000010000000000ul
#define USER_STACK 0x0000010000200000ul

/* STAR: SYSCALL's selectors, and the base SYSRET counts from (16 bytes below its 64-bit code). */
#define STAR_SELECTORS ((uint64_t)(SEL_USER_CODE32 | 3) << 48 | (uint64_t)SEL_CODE64 << 32)
#define USER_GS_BASE 0x0000010000300000ul
#define CLI 0xfa
#define TCG_GATE_ERROR (USER_DENIED_GATE * 16 + 2) /* of INT to a gate of DPL 0, in QEMU 7.2 */

static uint8_t text[PAGE] __attribute__((aligned(4096)));
static uint8_t stack[PAGE] __attribute__((aligned(4096)));
static uint8_t kernel_stack[4096] __attribute__((aligned(16)));
static struct percpu percpu;
static uint64_t reports[REPORTS];
static unsigned denied_cli;

/* Called from syscall.S and, for INT 80h, from call_by_gate(). */
uint64_t system_call(uint64_t number, uint64_t a, uint64_t b, uint64_t flags) {
  switch (number) {
    case SYS_EXIT:
      leave_user(a);
    case SYS_WRITE:
      for (uint64_t i = 0; i < b; i++) console_put(((const char *)a)[i]);
      return b;
    case SYS_REPORT:
      if (a < REPORTS) reports[a] = b;
      return 0;
    case SYS_FLAGS:
      return flags;
    default:
      return ~0ull;
  }
}

static void call_by_gate(struct frame *frame) {
  frame->rax = system_call(frame->rax, frame->rdi, frame->rsi, frame->rflags);
}

/* #GP: skips a CLI of ring 3, leaves all else to attempt(). */
static void forgive_cli(struct frame *frame) {
  if ((frame->cs & 3) == 3 && *(const uint8_t *)frame->rip == CLI && frame->error == 0) {
    denied_cli++;
    frame->rip++;
  } else {
    trap_handle(VECTOR_GP, 0);
  }
}

static uint64_t user_address(const uint8_t *program) {
  return USER_TEXT + (uint64_t)(program - user_begin);
}

static void set_up(void) {
  memcpy(text, user_begin, user_end - user_begin);
  page_map(USER_TEXT, text, PTE_PRESENT | PTE_USER);
  page_map(USER_STACK - PAGE, stack, PTE_PRESENT | PTE_USER | PTE_WRITE | PTE_NX);
  percpu.kernel_stack = (uint64_t)kernel_stack + sizeof kernel_stack;
  wrmsr(MSR_GS_BASE, (uint64_t)&percpu);
  wrmsr(MSR_KERNEL_GS_BASE, USER_GS_BASE);
  wrmsr(MSR_STAR, STAR_SELECTORS);
  wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
  wrmsr(MSR_SFMASK, RFLAGS_IF | RFLAGS_DF | 1 << 8 /* TF */);
  trap_handle(VECTOR_USER, call_by_gate);
}

static void visit_tour(void) {
  trap_handle(VECTOR_GP, forgive_cli);
  uint64_t answer = enter_by_iretq(user_address(user_tour), USER_STACK);
  trap_handle(VECTOR_GP, 0);
  check_equal("ring 3: what the program ended with", answer, 7);
  check_equal("ring 3: CS", reports[REPORT_CS], SEL_USER_CODE64 | 3);
  check_equal("ring 3: SS", reports[REPORT_SS], SEL_USER_DATA | 3);
  check(reports[REPORT_RCX] == reports[REPORT_NEXT] && reports[REPORT_NEXT] > USER_TEXT,
        "SYSCALL: RCX is the next instruction's address");
  check(reports[REPORT_R11] == reports[REPORT_FLAGS] && reports[REPORT_FLAGS] & RFLAGS_FIXED,
        "SYSCALL: R11 is RFLAGS");
  check(!(reports[REPORT_INSIDE] & RFLAGS_DF), "SYSCALL: SFMASK clears DF");
  check(reports[REPORT_AFTER] & RFLAGS_DF, "SYSRET: DF as before");
  check_equal("SYSCALL and SYSRET keep the other registers: difference", reports[REPORT_KEPT], 0);
  check_equal("CLI in ring 3: #GP(0), and back", denied_cli, 1);
  check_equal("ring 3: done", reports[REPORT_DONE], 0x600d);
  check(rdmsr(MSR_GS_BASE) == (uint64_t)&percpu && rdmsr(MSR_KERNEL_GS_BASE) == USER_GS_BASE,
        "SWAPGS in balance");
  check_equal("SYSRET as a way in: what the program ended with",
              enter_by_sysret(user_address(user_brief), USER_STACK), 9);
}

static void allow_port(uint16_t port) {
  tss.io_map[port / 8] &= (uint8_t)~(1 << port % 8);
}

static void visit_denials(void) {
  static const struct {
    const char *name;
    const uint8_t *program;
    uint64_t vector, error, cr2;
  } cases[] = {
      {"CLI", user_cli, VECTOR_GP, 0, 0},
      {"HLT", user_hlt, VECTOR_GP, 0, 0},
      {"OUT to a port the TSS denies", user_out, VECTOR_GP, 0, 0},
      {"MOV from CR0", user_cr0, VECTOR_GP, 0, 0},
      {"RDMSR", user_rdmsr, VECTOR_GP, 0, 0},
      {"LIDT", user_lidt, VECTOR_GP, 0, 0},
      {"INVLPG", user_invlpg, VECTOR_GP, 0, 0},
      {"SYSRET", user_sysret, VECTOR_GP, 0, 0},
      {"SWAPGS", user_swapgs, VECTOR_GP, 0, 0},
      {"INT to a gate of DPL 0", user_gate, VECTOR_GP, USER_DENIED_GATE * 8 + 2, 0},
      {"a read of a supervisor page", user_read, VECTOR_PF, PF_PRESENT | PF_USER, SUPERVISOR_ADDRESS},
      {"a write to a supervisor page", user_write, VECTOR_PF, PF_PRESENT | PF_USER | PF_WRITE,
       SUPERVISOR_ADDRESS},
      {"a jump to a supervisor page", user_fetch, VECTOR_PF, PF_PRESENT | PF_USER | PF_FETCH,
       SUPERVISOR_ADDRESS},
  };
  print("user: denied, one after the other\n");
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint64_t rip = user_address(cases[i].program);
    int vector = attempt(enter_by_iretq, rip, USER_STACK);
    if (cases[i].program == user_fetch) rip = SUPERVISOR_ADDRESS; /* the jump itself is done */
    int there = vector == (int)cases[i].vector && fault.frame.rip == rip &&
                fault.frame.cs == (SEL_USER_CODE64 | 3) &&
                (vector != VECTOR_PF || fault.cr2 == cases[i].cr2);
    int good = there && fault.error == cases[i].error;
    int deviation = there && cases[i].program == user_gate && fault.error == TCG_GATE_ERROR;
    if (!good && !deviation) {
      print("got vector %u error %lx rip %lx\n", vector, fault.error, fault.frame.rip);
    }
    check_but_tcg(good, deviation, cases[i].name);
  }
  check(rdmsr(MSR_GS_BASE) == (uint64_t)&percpu, "SWAPGS in balance after faults");
  uint64_t top = tss.rsp[0];
  check(fault.stack < top && fault.stack + 512 > top, "from ring 3: the frame is on RSP0's stack");
}

void visit_user(void) {
  set_up();
  visit_tour();
  for (uint16_t port = COM1; port < COM1 + 8; port++) allow_port(port);
  check_equal("OUT in ring 3: what the program ended with",
              enter_by_iretq(user_address(user_port), USER_STACK), 11);
  visit_denials();
  trap_handle(VECTOR_USER, 0);
}
