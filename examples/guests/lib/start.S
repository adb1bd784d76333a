/* The way in: from the multiboot entry state to 64-bit code with 4 GiB mapped one to one.
 *
 * On entry: 32-bit protected mode, paging off, A20 on, EAX = loader magic, EBX = information; the
 * descriptor tables and the stack are ours to make (Multiboot Specification, 3.2). A guest with
 * something to do in 32-bit mode defines main32() in a .32.c file, which is called on the way. */
#include "multiboot.h"
#include "selectors.h"

#define CR0_PG (1 << 31)
#define CR4_PAE (1 << 5)
#define MSR_EFER 0xc0000080
#define EFER_LME (1 << 8)
#define PAGE_PRESENT_WRITE 3
#define PAGE_LARGE 0x80
#define TABLE 4096
#define GIBS 4

.section .multiboot, "a"
.balign 4
  .long MULTIBOOT_HEADER_MAGIC
  .long MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO
  .long -(MULTIBOOT_HEADER_MAGIC + (MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO))

.weak _main32

.section .text.start, "ax"
.code32
.globl start
start:
  cli
  cld
  mov $stack_top, %esp
  mov %eax, boot_magic
  mov %ebx, boot_info
  lgdt gdt_pointer
  ljmp $SEL_CODE32, $1f
1:
  mov $SEL_DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  push $0
  popf

  call map_identity
  call _console_init

  mov $_main32, %eax
  test %eax, %eax
  jz 1f
  sub $4, %esp /* the i386 ABI wants ESP + 4 aligned to 16 in the callee */
  push boot_info
  push boot_magic
  call *%eax
  mov $stack_top, %esp
1:
  mov %cr4, %eax
  or $CR4_PAE, %eax
  mov %eax, %cr4
  mov $pml4, %eax
  mov %eax, %cr3
  mov $MSR_EFER, %ecx
  rdmsr
  or $EFER_LME, %eax
  wrmsr
  mov %cr0, %eax
  or $CR0_PG, %eax
  mov %eax, %cr0
  ljmp $SEL_CODE64, $start64

/* Fills the page tables: one PML4 entry, four page directories of 2 MiB pages. */
map_identity:
  movl $pdpt + PAGE_PRESENT_WRITE, pml4
  mov $pdpt, %edi
  mov $directories + PAGE_PRESENT_WRITE, %eax
  mov $GIBS, %ecx
1:
  mov %eax, (%edi)
  add $TABLE, %eax
  add $8, %edi
  loop 1b
  mov $directories, %edi
  mov $PAGE_PRESENT_WRITE | PAGE_LARGE, %eax
  mov $GIBS * 512, %ecx
1:
  mov %eax, (%edi)
  add $0x200000, %eax
  add $8, %edi
  loop 1b
  ret

.code64
start64:
  lgdt gdt_pointer /* with the 64-bit form of the base, which LGDT could not load until now */
  xor %eax, %eax
  mov %eax, %fs
  mov %eax, %gs
  mov $SEL_DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $stack_top, %esp
  xor %ebp, %ebp
  mov boot_magic, %edi
  mov boot_info, %esi
  call main
  mov %eax, %edi
  call guest_exit

.section .bss.boot, "aw", @nobits
.balign TABLE
.globl pml4, _pml4
pml4:
_pml4:
  .skip TABLE
pdpt:
  .skip TABLE
directories:
  .skip TABLE * GIBS
  .skip 16384
.globl stack_top
stack_top:
.globl boot_magic, boot_info, _boot_info
boot_magic:
  .skip 4
boot_info:
_boot_info:
  .skip 4
