/* SVM instructions as a program meets them (AMD APM volume 2, 15.4): undefined while EFER.SVME is clear,
 * executed while it is set, undefined again when it is cleared. `rounds=` is how often each is executed
 * while it is set, `toggles=` how often EFER.SVME is set. VMRUN is only tried where it is undefined. */
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "string.h"
#include "traps.h"

#define CPUID_SVM (1u << 2) /* 8000_0001h ECX */
#define EFER_SVME (1u << 12)
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176

static uint8_t area[4096] __attribute__((aligned(4096)));

static void vmrun(uint64_t page) { __asm__ volatile("vmrun" : : "a"(page) : "memory"); }
static void vmload(uint64_t page) { __asm__ volatile("vmload" : : "a"(page) : "memory"); }
static void vmsave(uint64_t page) { __asm__ volatile("vmsave" : : "a"(page) : "memory"); }
static void stgi(void) { __asm__ volatile("stgi" : : : "memory"); }
static void clgi(void) { __asm__ volatile("clgi" : : : "memory"); }
static void invlpga(uint64_t page) { __asm__ volatile("invlpga" : : "a"(page), "c"(0) : "memory"); }
static void vmmcall(void) { __asm__ volatile("vmmcall" : : "a"(0x1000) : "memory"); }

/* Found wanting while EFER.SVME is clear: the processor would execute them. VMSAVE comes before VMLOAD,
 * which would load zeros where nothing was saved. */
static const struct {
  const char *name;
  void *run;
} instructions[] = {
    {"vmsave", vmsave}, {"vmload", vmload},   {"stgi", stgi},
    {"clgi", clgi},     {"invlpga", invlpga}, {"vmrun", vmrun},
};
#define COUNT (sizeof instructions / sizeof instructions[0])

static int failed;

static void expect_undefined(void) {
  for (unsigned i = 0; i < COUNT; i++) {
    int vector = attempt(instructions[i].run, (uint64_t)area, 0);
    print("svme=0 %s: ", instructions[i].name);
    if (vector == NO_FAULT) print("executed\n");
    else print("vector %u\n", (unsigned)vector);
    failed |= vector != VECTOR_UD;
  }
}

static void set_svme(int on) {
  uint64_t efer = rdmsr(MSR_EFER);
  wrmsr(MSR_EFER, on ? efer | EFER_SVME : efer & ~(uint64_t)EFER_SVME);
}

/* What a hypervisor's loop executes around VMRUN. FS is loaded with something new in between, which
 * VMLOAD must bring back. */
static void execute(uint64_t rounds) {
  uint64_t kept = rdmsr(MSR_FS_BASE);
  int good = 1;
  for (uint64_t i = 0; i < rounds; i++) {
    uint64_t base = 0x100000 + (i << 12);
    clgi();
    wrmsr(MSR_FS_BASE, base);
    vmsave((uint64_t)area);
    wrmsr(MSR_FS_BASE, 0);
    vmload((uint64_t)area);
    good &= rdmsr(MSR_FS_BASE) == base;
    invlpga((uint64_t)area);
    stgi();
  }
  wrmsr(MSR_FS_BASE, kept);
  print("svme=1 %lu rounds%s\n", rounds, good ? "" : " FAIL: VMLOAD loaded something else");
  failed |= !good;
}

/* Whether VMSAVE and VMLOAD carry bits 63:32 depends on whose processor CPUID says it is. */
static void sysenter(void) {
  uint64_t esp = rdmsr(MSR_SYSENTER_ESP), eip = rdmsr(MSR_SYSENTER_EIP);
  wrmsr(MSR_SYSENTER_ESP, 0x00007fff12345678);
  wrmsr(MSR_SYSENTER_EIP, 0x000012349abcdef0);
  print("sysenter eip %lx esp %lx\n", rdmsr(MSR_SYSENTER_EIP), rdmsr(MSR_SYSENTER_ESP));
  vmsave((uint64_t)area);
  vmload((uint64_t)area);
  print("vmload:  eip %lx esp %lx\n", rdmsr(MSR_SYSENTER_EIP), rdmsr(MSR_SYSENTER_ESP));
  wrmsr(MSR_SYSENTER_ESP, esp);
  wrmsr(MSR_SYSENTER_EIP, eip);
}

int main(void) {
  uint64_t rounds = argument_number("rounds", 100);
  uint64_t toggles = argument_number("toggles", 2);
  traps_init();
  if (!(cpuid(0x80000001, 0).ecx & CPUID_SVM)) {
    print("svm: CPUID has no SVM\n");
    return 1;
  }
  expect_undefined();
  for (uint64_t i = 0; i < toggles; i++) {
    set_svme(1);
    execute(rounds);
    if (i == 0) sysenter();
    set_svme(0);
    expect_undefined();
  }
  /* A hypervisor may take VMMCALL for a call to itself; where there is none, it is undefined. */
  int vector = attempt(vmmcall, 0, 0);
  print("cpu: vmmcall %s\n", vector == VECTOR_UD ? "is undefined" : "was answered");
  return failed;
}
