/* CPUID and model-specific registers. */
#include "check.h"
#include "console.h"
#include "cpu.h"
#include "string.h"
#include "tour64.h"
#include "traps.h"

#define CPUID_VENDOR 0x00000000
#define CPUID_FEATURES 0x00000001
#define CPUID_HYPERVISOR 0x40000000
#define CPUID_EXTENDED 0x80000000
#define CPUID_EXTENDED_FEATURES 0x80000001
#define CPUID_BRAND 0x80000002
#define CPUID_SIZES 0x80000008

/* CPUID 1 EDX: TSC, MSR, PAE, CX8; 8000_0001 EDX: SYSCALL, NX, long mode. */
#define NEEDED_EDX (1u << 4 | 1u << 5 | 1u << 6 | 1u << 8)
#define NEEDED_EXTENDED_EDX (1u << 11 | 1u << 20 | 1u << 29)
#define FEATURE_HYPERVISOR (1u << 31)

#define NONEXISTENT_MSR 0x0badc0de

/* MSR bases of the segments, as they are read back. */
#define FS_TEST 0x123456789aull

static void put(char *to, uint32_t value) {
  memcpy(to, &value, 4);
}

/* Twelve characters out of EBX and two others, as leaves 0 and 4000_0000h have them. */
static int twelve(char text[13], uint32_t a, uint32_t b, uint32_t c) {
  int printable = 1;
  put(text, a);
  put(text + 4, b);
  put(text + 8, c);
  text[12] = '\0';
  for (int i = 0; i < 12; i++) {
    if (text[i] < ' ' || text[i] > '~') {
      text[i] = '.';
      printable = 0;
    }
  }
  return printable;
}

static void print_brand(void) {
  char brand[49];
  for (uint32_t i = 0; i < 3; i++) {
    struct cpuid b = cpuid(CPUID_BRAND + i, 0);
    put(brand + 16 * i, b.eax);
    put(brand + 16 * i + 4, b.ebx);
    put(brand + 16 * i + 8, b.ecx);
    put(brand + 16 * i + 12, b.edx);
  }
  brand[48] = '\0';
  print("cpu: brand \"%s\"\n", brand);
}

void visit_cpuid(void) {
  char name[13];
  struct cpuid v = cpuid(CPUID_VENDOR, 0), f = cpuid(CPUID_FEATURES, 0);
  struct cpuid e = cpuid(CPUID_EXTENDED, 0), x = cpuid(CPUID_EXTENDED_FEATURES, 0);
  int printable = twelve(name, v.ebx, v.edx, v.ecx);
  uint32_t eax = f.eax;
  uint32_t family = (eax >> 8 & 15) + ((eax >> 8 & 15) == 15 ? eax >> 20 & 255 : 0);
  uint32_t model = (eax >> 4 & 15) | (eax >> 16 & 15) << 4;

  print("cpu: vendor \"%s\", leaves to %08x and %08x\n", name, v.eax, e.eax);
  check(printable && v.eax >= 1, "CPUID names a vendor and has leaf 1");
  print("cpu: family %u model %u stepping %u\n", family, model, eax & 15);
  print("cpu: features ecx %08x edx %08x, extended ecx %08x edx %08x\n", f.ecx, f.edx, x.ecx, x.edx);
  check(!(NEEDED_EDX & ~f.edx) && !(NEEDED_EXTENDED_EDX & ~x.edx),
        "TSC, MSR, PAE, CX8, SYSCALL, NX and long mode are there");
  if (e.eax >= CPUID_BRAND + 2) print_brand();
  if (f.ecx & FEATURE_HYPERVISOR) {
    struct cpuid h = cpuid(CPUID_HYPERVISOR, 0);
    twelve(name, h.ebx, h.ecx, h.edx);
    print("cpu: hypervisor \"%s\"\n", name);
  }
  check(e.eax >= CPUID_SIZES, "leaf 8000_0008h is there");
  uint32_t sizes = cpuid(CPUID_SIZES, 0).eax;
  print("cpu: physical addresses %u bits, linear %u\n", sizes & 255, sizes >> 8 & 255);
  check((sizes & 255) >= 32 && (sizes & 255) <= 52 && (sizes >> 8 & 255) >= 48, "address sizes");

  uint64_t rax = ~0ull, rbx, rcx = ~0ull << 32, rdx;
  rax = rax << 32 | CPUID_VENDOR;
  __asm__ volatile("movq $-1, %%rbx; movq $-1, %%rdx; cpuid"
                   : "+a"(rax), "=b"(rbx), "+c"(rcx), "=d"(rdx));
  check_equal("CPUID clears upper halves", (rax | rbx | rcx | rdx) >> 32, 0);
}

static void read_nonexistent(void) {
  rdmsr(NONEXISTENT_MSR);
}
static void write_nonexistent(void) {
  wrmsr(NONEXISTENT_MSR, 0);
}

/* TCG lets every MSR be read and written. */
static void check_nonexistent(void (*access)(void), const char *what) {
  int vector = attempt(access, 0, 0);
  check_but_tcg(vector == VECTOR_GP && fault.error == 0, vector == NO_FAULT, what);
}

static uint64_t read_fs(uint64_t offset) {
  uint64_t value;
  __asm__ volatile("movq %%fs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
  return value;
}
static uint64_t read_gs(uint64_t offset) {
  uint64_t value;
  __asm__ volatile("movq %%gs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
  return value;
}

static void visit_bases(void) {
  static const uint64_t a[2] = {0x1111, 0x2222}, b[2] = {0x3333, 0x4444};
  wrmsr(MSR_FS_BASE, (uint64_t)a);
  check_equal("FS base: read through FS", read_fs(8), 0x2222);
  wrmsr(MSR_FS_BASE, FS_TEST);
  check_equal("FS base: 64 bits read back", rdmsr(MSR_FS_BASE), FS_TEST);
  wrmsr(MSR_FS_BASE, 0);

  wrmsr(MSR_GS_BASE, (uint64_t)a);
  wrmsr(MSR_KERNEL_GS_BASE, (uint64_t)b);
  check_equal("GS base: read through GS", read_gs(0), 0x1111);
  __asm__ volatile("swapgs" : : : "memory");
  check_equal("SWAPGS: read through GS", read_gs(0), 0x3333);
  check(rdmsr(MSR_KERNEL_GS_BASE) == (uint64_t)a && rdmsr(MSR_GS_BASE) == (uint64_t)b,
        "SWAPGS exchanges GS base and KernelGSbase");
  __asm__ volatile("swapgs" : : : "memory");
  check(rdmsr(MSR_GS_BASE) == (uint64_t)a, "SWAPGS again: back");
  wrmsr(MSR_GS_BASE, 0);
  wrmsr(MSR_KERNEL_GS_BASE, 0);
}

void visit_msrs(void) {
  wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE | EFER_NXE);
  check_equal("EFER: SCE, LME, LMA, NXE", rdmsr(MSR_EFER) & 0xd01, 0xd01);
  wrmsr(MSR_STAR, 0x0018000800000000);
  wrmsr(MSR_LSTAR, 0xffff800012345678);
  check_equal("STAR reads back", rdmsr(MSR_STAR), 0x0018000800000000);
  check_equal("LSTAR reads back", rdmsr(MSR_LSTAR), 0xffff800012345678);
  visit_bases();

  uint64_t first = rdtsc(), last = first;
  int monotonic = 1;
  for (int i = 0; i < 1000; i++) {
    uint64_t now = rdtsc();
    monotonic &= now >= last;
    last = now;
  }
  check(monotonic && last > first, "TSC: never back, and forward in 1000 readings");
  uint64_t msr = rdmsr(MSR_TSC);
  check_but_tcg(msr >= last && msr <= rdtsc(), msr == 0, "TSC: the MSR is the same clock");
  check_nonexistent(read_nonexistent, "#GP: reading a nonexistent MSR");
  check_nonexistent(write_nonexistent, "#GP: writing a nonexistent MSR");
}
