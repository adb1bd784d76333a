/* A guest's programs as a program of Linux without a C library: the entry, and the board of native.h.
 * The only argument is the guest's command line. */
#include "console.h"
#include "exit.h"
#include "multiboot.h"

#ifdef __x86_64__
#define SYS_WRITE 1
#define SYS_EXIT 60
static void call(long number, long a, const void *b, long c) {
  __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
}
__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
#else
#define SYS_WRITE 4
#define SYS_EXIT 1
static void call(long number, long a, const void *b, long c) {
  __asm__ volatile("int $0x80" : "+a"(number) : "b"(a), "c"(b), "d"(c) : "memory");
}
__asm__(".globl _start\n_start: mov %esp, %eax\nand $-16, %esp\nsub $12, %esp\npush %eax\ncall begin\n");
#endif

void outb(uint16_t port, uint8_t value) {
  if (port == UART_DATA) call(SYS_WRITE, 1, &value, 1);
  if (port == DEBUG_EXIT_PORT) call(SYS_EXIT, value, 0, 0);
}

uint8_t inb(uint16_t port) {
  return port == UART_LSR ? UART_LSR_THRE | UART_LSR_TEMT : 0xff;
}

void traps_init(void) {}

uint32_t boot_info; /* 32 bits, so what it points at must not be on the stack */
static struct multiboot_info info;
static char line[256];

void PROGRAMS(void);

void begin(char **stack);
void begin(char **stack) {
  const char *from = (long)stack[0] > 1 ? stack[2] : "";
  for (unsigned i = 0; i < sizeof line - 1 && from[i]; i++) line[i] = from[i];
  info.flags = MULTIBOOT_HAS_COMMAND_LINE;
  info.cmdline = (uint32_t)(uintptr_t)line;
  boot_info = (uint32_t)(uintptr_t)&info;
  PROGRAMS();
  guest_exit(0);
}
