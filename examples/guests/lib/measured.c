#include "measured.h"

#include "arguments.h"
#include "console.h"

void measured_run(const char *guest, const struct measured *programs, unsigned count) {
  int chosen = 0;
  for (unsigned i = 0; i < count; i++) chosen |= argument_present(programs[i].name);
  for (unsigned i = 0; i < count; i++) {
    uint32_t rounds = (uint32_t)argument_number(programs[i].name, chosen ? 0 : 1);
    if (!rounds) continue;
    uint32_t checksum = programs[i].run(rounds);
    print("%s: %u-bit %s rounds %u checksum %08x\n", guest, (unsigned)(8 * sizeof(void *)),
          programs[i].name, rounds, checksum);
  }
}
