/* The local APIC, through memory or through MSRs (AMD APM volume 2, chapter 16). */
#ifndef APIC_H
#define APIC_H
#include <stdint.h>

#define APIC_ID 0x020
#define APIC_VERSION 0x030
#define APIC_TPR 0x080
#define APIC_PPR 0x0a0
#define APIC_EOI 0x0b0
#define APIC_LDR 0x0d0
#define APIC_DFR 0x0e0
#define APIC_SVR 0x0f0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ESR 0x280
#define APIC_ICR 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_THERMAL 0x330
#define APIC_LVT_PERF 0x340
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_LVT_ERROR 0x370
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0
#define APIC_SELF_IPI 0x3f0 /* x2APIC mode only */

#define SVR_ENABLE 0x100
#define LVT_MASKED 0x10000
#define LVT_PERIODIC 0x20000

#define ICR_NMI 0x400
#define ICR_INIT 0x500
#define ICR_STARTUP 0x600
#define ICR_LOGICAL 0x800
#define ICR_ASSERT 0x4000
#define ICR_SELF 0x40000
#define ICR_ALL 0x80000
#define ICR_OTHERS 0xc0000

#define MSR_APIC_BASE 0x0000001b
#define APIC_BASE_X2 (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)

/* Whether CPUID has an x2APIC mode. */
int apic_has_x2(void);

/* Whether this processor is in x2APIC mode. */
int apic_is_x2(void);

/* Enables this processor's APIC, in x2APIC mode if asked for, with spurious vector FFh. */
void apic_enable(int x2);

uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);

/* This processor's APIC ID. */
uint32_t apic_id(void);

/* Sends an IPI; `to` is not used with a shorthand. */
void apic_send(uint32_t to, uint32_t command);

static inline void apic_eoi(void) {
  apic_write(APIC_EOI, 0);
}

#endif
