/*
 * Runs programs on the processor it is started on and writes down what they did.
 *
 * Usage: record INPUT OUTPUT. Both are streams of little-endian records that record.ts writes and
 * reads; the programs, their registers and their memory all come from there. Each program is run
 * twice: freely, for the outcome, and then with RFLAGS.TF set, to see which instructions retire.
 *
 * Needs x86-64 Linux, the right to map the pages below 64 KiB (root, or vm.mmap_min_addr of at most
 * 16384), and split-lock detection off.
 */

#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

enum { RF = 1 << 16, TF = 1 << 8, INT3 = 0xcc, CODE32 = 0x23, DATA = 0x2b };
enum { VECTOR_DB = 1, HUNG = 0xff, STEP_LIMIT = 1 << 20 };

struct region {
  uint32_t base, size;
};

static struct region low, code, scratch;

/* The registers in encoding order, as the trampolines load them. */
static struct {
  uint64_t gpr[16];
  uint64_t rflags;
} entry_state;

static struct {
  uint8_t vector;
  uint32_t error;
  uint64_t cr2, rip, rflags, gpr[16];
} outcome;

static const int context_order[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static sigjmp_buf resume;
static uint32_t program_start, program_length;
static uint8_t retired[8192];
static uint32_t retired_count, steps;
static uint64_t last_rip;

static void fail(const char *what) {
  fprintf(stderr, "record: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* One instruction has been stepped over. A repeated string instruction traps after each element
 * and has retired only when RIP leaves it. */
static void step(ucontext_t *context) {
  greg_t *gregs = context->uc_mcontext.gregs;
  uint64_t rip = (uint64_t)gregs[REG_RIP];
  uint64_t offset = last_rip - program_start;
  if (offset < program_length && rip != last_rip) {
    retired[offset >> 3] |= 1 << (offset & 7);
    retired_count++;
  }
  last_rip = rip;
  if (++steps > STEP_LIMIT) {
    outcome.vector = HUNG;
    siglongjmp(resume, 1);
  }
  gregs[REG_EFL] |= TF;
}

static void on_signal(int number, siginfo_t *info, void *opaque) {
  ucontext_t *context = opaque;
  greg_t *gregs = context->uc_mcontext.gregs;
  (void)info;
  if (number == SIGTRAP && gregs[REG_TRAPNO] == VECTOR_DB) {
    step(context);
    return;
  }
  /* INTO is passed when it traps. INT3 is the end and does not count. */
  uint64_t offset = last_rip - program_start;
  if (gregs[REG_TRAPNO] == 4 && offset < program_length) {
    retired[offset >> 3] |= 1 << (offset & 7);
    retired_count++;
  }
  outcome.vector = number == SIGALRM ? HUNG : (uint8_t)gregs[REG_TRAPNO];
  outcome.error = (uint32_t)gregs[REG_ERR];
  outcome.cr2 = (uint64_t)gregs[REG_CR2];
  outcome.rip = (uint64_t)gregs[REG_RIP];
  outcome.rflags = (uint64_t)gregs[REG_EFL];
  for (int i = 0; i < 16; i++) outcome.gpr[i] = (uint64_t)gregs[context_order[i]];
  siglongjmp(resume, 1);
}

static uint64_t target64;
static struct {
  uint32_t offset;
  uint16_t selector;
} __attribute__((packed)) target32;

#define LOAD_STATE                                                                          \
  "pushq 128(%0)\n\t"                                                                       \
  "mov %0, %%r15\n\t"                                                                       \
  "popfq\n\t"                                                                               \
  "mov 0(%%r15), %%rax\n\t mov 8(%%r15), %%rcx\n\t mov 16(%%r15), %%rdx\n\t"                \
  "mov 24(%%r15), %%rbx\n\t mov 32(%%r15), %%rsp\n\t mov 40(%%r15), %%rbp\n\t"              \
  "mov 48(%%r15), %%rsi\n\t mov 56(%%r15), %%rdi\n\t mov 64(%%r15), %%r8\n\t"               \
  "mov 72(%%r15), %%r9\n\t mov 80(%%r15), %%r10\n\t mov 88(%%r15), %%r11\n\t"               \
  "mov 96(%%r15), %%r12\n\t mov 104(%%r15), %%r13\n\t mov 112(%%r15), %%r14\n\t"            \
  "mov 120(%%r15), %%r15\n\t"

static __attribute__((noinline, noreturn)) void enter64(void) {
  __asm__ volatile(LOAD_STATE "jmp *%1" : : "r"(&entry_state), "m"(target64) : "memory");
  __builtin_unreachable();
}

static __attribute__((noinline, noreturn)) void enter32(void) {
  __asm__ volatile(LOAD_STATE "ljmp *%1" : : "r"(&entry_state), "m"(target32) : "memory");
  __builtin_unreachable();
}

/* The direction and the nested-task flag of a program must not reach the recorder's own code. */
static void reset_flags(void) {
  __asm__ volatile("pushq $0x202\n\t popfq" : : : "memory", "cc");
}

static void timer(int seconds) {
  struct itimerval value = {{0, 0}, {seconds, 0}};
  setitimer(ITIMER_REAL, &value, NULL);
}

static void run(int mode, int stepping) {
  memset(&outcome, 0, sizeof outcome);
  last_rip = 0;
  steps = 0;
  timer(5);
  if (sigsetjmp(resume, 1) == 0) {
    if (stepping) entry_state.rflags |= TF;
    if (mode == 64) enter64();
    enter32();
  }
  reset_flags();
  timer(0);
  entry_state.rflags &= ~(uint64_t)TF;
}

static void map(struct region region, int protection) {
  void *want = (void *)(uintptr_t)region.base;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE;
  if (mmap(want, region.size, protection, flags, -1, 0) != want) fail("mmap");
  if (mlock(want, region.size) != 0) fail("mlock");
}

static void get(FILE *in, void *to, size_t bytes) {
  if (fread(to, 1, bytes, in) != bytes) fail("input ends early");
}

static void put(FILE *out, const void *from, size_t bytes) {
  if (fwrite(from, 1, bytes, out) != bytes) fail("write");
}

/* Writes the bytes of a region that differ from what they were, as runs of address, length, bytes.
 * A run goes on over up to three bytes that are the same. */
static void put_changes(FILE *out, struct region region, const uint8_t *before) {
  const uint8_t *now = (const uint8_t *)(uintptr_t)region.base;
  for (uint32_t at = 0; at < region.size;) {
    if (now[at] == before[at]) {
      at++;
      continue;
    }
    uint32_t end = at + 1;
    for (uint32_t i = end; i < region.size && i < end + 4; i++) {
      if (now[i] != before[i]) end = i + 1;
    }
    uint32_t header[2] = {region.base + at, end - at};
    put(out, header, sizeof header);
    put(out, now + at, end - at);
    at = end;
  }
}

static void put_processor(FILE *out) {
  uint32_t a, b, c, d, name[12];
  __cpuid(0, a, b, c, d);
  uint32_t vendor[3] = {b, d, c};
  for (unsigned i = 0; i < 3; i++) {
    __cpuid(0x80000002 + i, name[4 * i], name[4 * i + 1], name[4 * i + 2], name[4 * i + 3]);
  }
  __cpuid(1, a, b, c, d);
  put(out, vendor, sizeof vendor);
  put(out, name, sizeof name);
  put(out, &a, sizeof a);
}

static void install(void) {
  static uint8_t stack[1 << 16];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  if (sigaltstack(&alternate, NULL) != 0) fail("sigaltstack");
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  static const int signals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGALRM};
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
    if (sigaction(signals[i], &action, NULL) != 0) fail("sigaction");
  }
  /* 64-bit mode ignores DS and ES; compatibility mode needs them. */
  __asm__ volatile("mov %0, %%ds\n\t mov %0, %%es" : : "r"(DATA));
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: record INPUT OUTPUT\n");
    return 2;
  }
  FILE *in = fopen(arguments[1], "rb");
  if (in == NULL) fail(arguments[1]);
  FILE *out = fopen(arguments[2], "wb");
  if (out == NULL) fail(arguments[2]);

  get(in, &low, sizeof low);
  get(in, &code, sizeof code);
  get(in, &scratch, sizeof scratch);
  map(low, PROT_READ | PROT_WRITE);
  map(scratch, PROT_READ | PROT_WRITE);
  map(code, PROT_READ | PROT_WRITE | PROT_EXEC);
  uint8_t *const code_bytes = (uint8_t *)(uintptr_t)code.base;
  uint8_t *const low_bytes = (uint8_t *)(uintptr_t)low.base;
  uint8_t *const scratch_bytes = (uint8_t *)(uintptr_t)scratch.base;

  uint32_t images, programs;
  get(in, &images, sizeof images);
  get(in, &programs, sizeof programs);
  size_t image_size = low.size + scratch.size;
  uint8_t *image = malloc(images * image_size);
  if (image == NULL) fail("malloc");
  get(in, image, images * image_size);

  install();
  put_processor(out);
  for (uint32_t n = 0; n < programs; n++) {
    struct {
      uint16_t mode, image, entry, length;
    } header;
    get(in, &header, sizeof header);
    get(in, &entry_state, sizeof entry_state);
    memset(code_bytes, INT3, code.size);
    get(in, code_bytes + header.entry, header.length);
    program_start = code.base + header.entry;
    program_length = header.length;
    target64 = program_start;
    target32.offset = program_start;
    target32.selector = CODE32;
    const uint8_t *before = image + header.image * image_size;
    for (int stepping = 0; stepping < 2; stepping++) {
      memcpy(low_bytes, before, low.size);
      memcpy(scratch_bytes, before + low.size, scratch.size);
      memset(retired, 0, sizeof retired);
      retired_count = 0;
      run(header.mode, stepping);
      outcome.rflags &= ~(uint64_t)(RF | TF);
      put(out, &outcome.vector, sizeof outcome.vector);
      put(out, &outcome.error, sizeof outcome.error);
      put(out, &outcome.cr2, sizeof outcome.cr2);
      put(out, &outcome.rip, sizeof outcome.rip);
      put(out, &outcome.rflags, sizeof outcome.rflags);
      put(out, outcome.gpr, sizeof outcome.gpr);
      put(out, &retired_count, sizeof retired_count);
      put(out, retired, (header.length + 7) / 8);
      put_changes(out, low, before);
      put_changes(out, scratch, before + low.size);
      uint32_t end[2] = {0, 0};
      put(out, end, sizeof end);
    }
  }
  if (fclose(out) != 0) fail("close");
  return 0;
}
