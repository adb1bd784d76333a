/* Runs for ever without an exit. RAX counts the rounds, so that one can see from outside that it moves. */
#include "console.h"

int main(void) {
  print("spin: for ever\n");
  console_drain();
  __asm__ volatile("xor %%eax, %%eax\n1: inc %%rax\njmp 1b" : : : "rax");
  __builtin_unreachable();
}
