/* Runs a multiboot image in a virtual machine of Linux's KVM, and says how often each vCPU has exited.
 *
 *     vmm IMAGE CPUS [WORDS]
 *
 * WORDS are the image's command line. There is RAM, what the kernel has of interrupt controllers, a console
 * at COM1 that only prints, and the port F4h by which a guest ends: the exit status is twice what it writes
 * there, and one, as with QEMU's isa-debug-exit.
 * (Linux, Documentation/virt/kvm/api.rst; Multiboot Specification 0.6.96.) */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RAM (64u << 20)
#define INFORMATION 0x9000u
#define COMMAND_LINE 0x9800u
#define COM1 0x3f8
#define LINE_STATUS 5
#define TRANSMITTER_EMPTY 0x60
#define DEBUG_EXIT 0xf4
#define MOST_CPUS 64
#define MOST_LEAVES 256

static int vm, run_bytes, cpus, fds[MOST_CPUS], stats[MOST_CPUS];
static uint8_t *ram;

__attribute__((noreturn)) static void give_up(const char *what) {
  printf("vmm: %s: %s\n", what, strerror(errno));
  exit(125);
}

static int ask(int fd, unsigned long request, void *argument, const char *what) {
  int result = ioctl(fd, request, argument);
  if (result < 0) give_up(what);
  return result;
}

/* Loads the segments; the entry point. */
static uint32_t load(const char *name) {
  int fd = open(name, O_RDONLY);
  struct stat file;
  if (fd < 0 || fstat(fd, &file) < 0) give_up(name);
  const uint8_t *bytes = mmap(0, file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  const Elf32_Ehdr *header = (const void *)bytes;
  if (bytes == MAP_FAILED) give_up(name);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS32) {
    errno = ENOEXEC;
    give_up(name);
  }
  const Elf32_Phdr *segment = (const void *)(bytes + header->e_phoff);
  for (int k = 0; k < header->e_phnum; k++, segment++) {
    if (segment->p_type != PT_LOAD) continue;
    memcpy(ram + segment->p_paddr, bytes + segment->p_offset, segment->p_filesz);
  }
  return header->e_entry;
}

/* What a loader hands over: how much memory there is, and the command line. */
static void inform(const char *name, const char *words) {
  uint32_t *information = (void *)(ram + INFORMATION);
  information[0] = 1 | 4;
  information[1] = 640;
  information[2] = (RAM >> 10) - 1024;
  information[4] = COMMAND_LINE;
  snprintf((char *)ram + COMMAND_LINE, 0x700, "%s %s", name, words);
}

static struct kvm_segment flat(unsigned selector, unsigned type) {
  return (struct kvm_segment){ .limit = 0xffffffff, .selector = selector, .type = type,
    .present = 1, .db = 1, .s = 1, .g = 1 };
}

/* 32-bit protected mode without paging, as the specification says (3.2). */
static void enter(int cpu, uint32_t entry) {
  struct kvm_sregs system;
  ask(cpu, KVM_GET_SREGS, &system, "KVM_GET_SREGS");
  system.cs = flat(8, 11);
  system.ds = system.es = system.fs = system.gs = system.ss = flat(16, 3);
  system.cr0 |= 1;
  ask(cpu, KVM_SET_SREGS, &system, "KVM_SET_SREGS");
  struct kvm_regs registers = { .rip = entry, .rax = 0x2badb002, .rbx = INFORMATION, .rflags = 2 };
  ask(cpu, KVM_SET_REGS, &registers, "KVM_SET_REGS");
}

/* All that KVM can give a guest, with the vCPU's own APIC ID. */
static void identify(int kvm, int cpu, unsigned id) {
  struct kvm_cpuid2 *leaves = calloc(1, sizeof *leaves + MOST_LEAVES * sizeof leaves->entries[0]);
  leaves->nent = MOST_LEAVES;
  ask(kvm, KVM_GET_SUPPORTED_CPUID, leaves, "KVM_GET_SUPPORTED_CPUID");
  for (unsigned k = 0; k < leaves->nent; k++) {
    struct kvm_cpuid_entry2 *leaf = &leaves->entries[k];
    if (leaf->function == 1) {
      leaf->ebx = (leaf->ebx & 0xffffff) | id << 24;
      leaf->ecx |= 1u << 21;
    }
    if (leaf->function == 0xb || leaf->function == 0x1f) leaf->edx = id;
    if (leaf->function == 0x8000001e) leaf->eax = id;
  }
  ask(cpu, KVM_SET_CPUID2, leaves, "KVM_SET_CPUID2");
  free(leaves);
}

/* Everything that KVM has counted of a vCPU (api.rst, 4.133). */
static void tell(unsigned id) {
  struct kvm_stats_header header;
  int fd = stats[id];
  if (pread(fd, &header, sizeof header, 0) != sizeof header) give_up("KVM_GET_STATS_FD");
  size_t each = sizeof(struct kvm_stats_desc) + header.name_size;
  struct kvm_stats_desc *description = malloc(each);
  printf("vmm: vcpu %u:", id);
  for (unsigned k = 0; k < header.num_desc; k++) {
    uint64_t value = 0;
    if (pread(fd, description, each, header.desc_offset + k * each) != (ssize_t)each) break;
    if (description->size != 1) continue;
    if (pread(fd, &value, 8, header.data_offset + description->offset) != 8) break;
    if (value != 0) printf(" %s=%llu", description->name, (unsigned long long)value);
  }
  printf("\n");
  free(description);
}

__attribute__((noreturn)) static void end(int status) {
  for (int k = 0; k < cpus; k++) tell(k);
  fflush(stdout);
  _exit(status);
}

static void in_out(struct kvm_run *run) {
  uint8_t *data = (uint8_t *)run + run->io.data_offset;
  unsigned bytes = run->io.size * run->io.count;
  if (run->io.direction == KVM_EXIT_IO_IN) {
    memset(data, run->io.port == COM1 + LINE_STATUS ? TRANSMITTER_EMPTY : 0xff, bytes);
    if (run->io.port >= COM1 && run->io.port < COM1 + LINE_STATUS) memset(data, 0, bytes);
  } else if (run->io.port == COM1) {
    fwrite(data, 1, bytes, stdout);
  } else if (run->io.port == DEBUG_EXIT) {
    end((data[0] << 1 | 1) & 0xff);
  }
}

static void *work(void *argument) {
  unsigned id = (uintptr_t)argument;
  struct kvm_run *run = mmap(0, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[id], 0);
  if (run == MAP_FAILED) give_up("a vCPU's page");
  for (;;) {
    if (ioctl(fds[id], KVM_RUN, 0) < 0) {
      /* A processor that has not been started yet was woken. */
      if (errno == EAGAIN || errno == EINTR) continue;
      give_up("KVM_RUN");
    }
    if (run->exit_reason == KVM_EXIT_IO) {
      in_out(run);
    } else {
      printf("vmm: vcpu %u: exit reason %u, %llx\n", id, run->exit_reason,
             (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
      end(124);
    }
  }
}

int main(int argc, char **argv) {
  cpus = argc > 2 ? atoi(argv[2]) : 0;
  if (cpus < 1 || cpus > MOST_CPUS) {
    printf("usage: vmm IMAGE CPUS [WORDS]\n");
    return 2;
  }
  int kvm = open("/dev/kvm", O_RDWR);
  if (kvm < 0) give_up("/dev/kvm");
  vm = ask(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
  ask(vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000ul, "KVM_SET_TSS_ADDR");
  ask(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
  struct kvm_pit_config timer = { 0 };
  ask(vm, KVM_CREATE_PIT2, &timer, "KVM_CREATE_PIT2");
  /* While ticks are to be made up for, KVM leaves AVIC and APICv off. */
  struct kvm_reinject_control ticks = { .pit_reinject = 0 };
  ask(vm, KVM_REINJECT_CONTROL, &ticks, "KVM_REINJECT_CONTROL");
  ram = mmap(0, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) give_up("memory");
  struct kvm_userspace_memory_region region = { .memory_size = RAM, .userspace_addr = (uintptr_t)ram };
  ask(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
  uint32_t entry = load(argv[1]);
  inform(argv[1], argc > 3 ? argv[3] : "");
  run_bytes = ask(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
  for (int k = 0; k < cpus; k++) {
    fds[k] = ask(vm, KVM_CREATE_VCPU, (void *)(uintptr_t)k, "KVM_CREATE_VCPU");
    stats[k] = ask(fds[k], KVM_GET_STATS_FD, 0, "KVM_GET_STATS_FD");
    identify(kvm, fds[k], k);
  }
  enter(fds[0], entry);
  for (uintptr_t k = 1; k < (uintptr_t)cpus; k++) {
    pthread_t thread;
    if (pthread_create(&thread, 0, work, (void *)k) != 0) give_up("a thread");
  }
  work(0);
}
