/* The top 256 bytes of a ROM that takes the place of a BIOS: from the reset vector to a multiboot guest's
 * entry. The ROM begins at FFFE0000h with the guest's entry, then twice a size and as many bytes: the
 * multiboot information, for INFO_ADDRESS, and the image, for 1 MiB. */
#define ROM 0xfffe0000
#define TOP 0xffffff00
#define SEGMENT_OFFSET 0xff00 /* of TOP, from the base CS has after reset */
#define INFO_ADDRESS 0x5000
#define LOADER_MAGIC 0x2badb002
#define CODE 8
#define DATA 16

.code16
top:
  cli
  mov $2, %al
  out %al, $0x92 /* A20 */
  lgdtl %cs:(SEGMENT_OFFSET + pointer - top)
  mov %cr0, %eax
  or $1, %al
  mov %eax, %cr0
  ljmpl $CODE, $(TOP + protected - top)
.code32
protected:
  mov $DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  cld
  mov $ROM, %esi
  lodsl
  mov %eax, %ebp
  lodsl
  mov %eax, %ecx
  mov $INFO_ADDRESS, %edi
  rep movsb
  lodsl
  mov %eax, %ecx
  mov $0x100000, %edi
  rep movsb
  mov $LOADER_MAGIC, %eax
  mov $INFO_ADDRESS, %ebx
  jmp *%ebp

.balign 8
gdt:
  .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
pointer:
  .word 23
  .long TOP + gdt - top

.org 0xf0
.code16
  jmp top
.org 0x100
