/* Processor registers and the bits of them that guests use (AMD APM volume 2, chapter 3). */
#ifndef CPU_H
#define CPU_H
#include <stdint.h>

#define CR0_PE (1ul << 0)
#define CR0_WP (1ul << 16)
#define CR0_PG (1ul << 31)
#define CR4_PSE (1ul << 4)
#define CR4_PAE (1ul << 5)

#define RFLAGS_CF (1ul << 0)
#define RFLAGS_FIXED (1ul << 1)
#define RFLAGS_IF (1ul << 9)
#define RFLAGS_DF (1ul << 10)

#define MSR_TSC 0x00000010
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102

#define EFER_SCE (1u << 0)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

static inline unsigned long read_cr0(void) {
  unsigned long value;
  __asm__ volatile("mov %%cr0, %0" : "=r"(value) : : "memory");
  return value;
}
static inline void write_cr0(unsigned long value) {
  __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}
static inline unsigned long read_cr2(void) {
  unsigned long value;
  __asm__ volatile("mov %%cr2, %0" : "=r"(value) : : "memory");
  return value;
}
static inline unsigned long read_cr3(void) {
  unsigned long value;
  __asm__ volatile("mov %%cr3, %0" : "=r"(value) : : "memory");
  return value;
}
static inline void write_cr3(unsigned long value) {
  __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}
static inline unsigned long read_cr4(void) {
  unsigned long value;
  __asm__ volatile("mov %%cr4, %0" : "=r"(value) : : "memory");
  return value;
}
static inline void write_cr4(unsigned long value) {
  __asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

static inline uint64_t rdmsr(uint32_t msr) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
  return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t value) {
  __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t rdtsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

struct cpuid {
  uint32_t eax, ebx, ecx, edx;
};
static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
  struct cpuid r;
  __asm__ volatile("cpuid"
                   : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                   : "a"(leaf), "c"(subleaf)
                   : "memory");
  return r;
}

#endif
