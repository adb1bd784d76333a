/**
 * Opcode maps behind VEX and EVEX prefixes, in the notation of `opcode_map.ts` (Intel APX architecture
 * specification, tables of map 4; SDM vol. 2 for the rest).
 *
 * Further qualifiers: `nd` with ND = 0 or 1, the latter with the register in V as destination; `nf` with
 * NF = 0 or 1; `ND NF` only with the bit set (they are clear where nothing is said); `cc` a conditional
 * form, with a source condition code and default flags; `os` without mandatory prefix, or 66 for 16-bit
 * operands; `norsp` RSP is no operand; `distinct` two operands differ; `@x` only with feature x. B is
 * the register in V.
 *
 * What CPUID does not report is undefined: CET, USER_MSR, ENQCMD, INVPCID, AMX, AVX-512.
 *
 * @module
 */

/** Sixteen opcodes that differ in the condition, which stands for `cc` in `cell`. */
function conditions(first: string, second: string, cell: string): string {
  const row = (names: string): string =>
    names.split(" ").map((name) => cell.replaceAll("cc", name)).join(" | ");
  return `${first} ${row("O NO B NB Z NZ BE NBE")}\n${second} ${row("S NS P NP L NL LE NLE")}`;
}

const CONDITIONAL = conditions(
  "40",
  "48",
  "os CFCMOVcc Gv,Ev ; NF os CFSTOREcc Ev,Gv ; ND os CMOVcc.nd Gv,Ev,Bv ; " +
    "ND NF os CFCMOVcc.nd Gv,Ev,Bv ; F2 SETcc Eb ; ND F2 SETcc.zu Eb",
);

/** EVEX map 4: promoted legacy instructions. */
export const EVEX_PROMOTED: string = `
00 nd nf NP ADD Eb,Gb | nd nf os ADD Ev,Gv | nd nf NP ADD Gb,Eb | nd nf os ADD Gv,Ev | - | - | - | -
08 nd nf NP OR Eb,Gb | nd nf os OR Ev,Gv | nd nf NP OR Gb,Eb | nd nf os OR Gv,Ev | - | - | - | -
10 nd NP ADC Eb,Gb | nd os ADC Ev,Gv | nd NP ADC Gb,Eb | nd os ADC Gv,Ev | - | - | - | -
18 nd NP SBB Eb,Gb | nd os SBB Ev,Gv | nd NP SBB Gb,Eb | nd os SBB Gv,Ev | - | - | - | -
20 nd nf NP AND Eb,Gb | nd nf os AND Ev,Gv | nd nf NP AND Gb,Eb | nd nf os AND Gv,Ev | nd nf os SHLD Ev,Gv,Ib | - | - | -
28 nd nf NP SUB Eb,Gb | nd nf os SUB Ev,Gv | nd nf NP SUB Gb,Eb | nd nf os SUB Gv,Ev | nd nf os SHRD Ev,Gv,Ib | - | - | -
30 nd nf NP XOR Eb,Gb | nd nf os XOR Ev,Gv | nd nf NP XOR Gb,Eb | nd nf os XOR Gv,Ev | - | - | - | -
38 cc NP CMP Eb,Gb | cc os CMP Ev,Gv | cc NP CMP Gb,Eb | cc os CMP Gv,Ev | - | - | - | -
${CONDITIONAL}
60 os MOVBE Gv,Ev | os MOVBE Ev,Gv | - | - | - | @shstk mem 66 WRUSS My,Gy ; - | nd 66 ADCX Gy,Ey ; nd F3 ADOX Gy,Ey ; @shstk mem NP WRSS My,Gy ; - | -
68 - | nf os IMUL Gv,Ev,Iz ; ND nf os IMUL.zu Gv,Ev,Iz | - | nf os IMUL Gv,Ev,Ibs ; ND nf os IMUL.zu Gv,Ev,Ibs | - | - | - | -
80 NP GRPX1 Eb,Ib | os GRPX1 Ev,Iz | - | os GRPX1 Ev,Ibs | cc NP TEST Eb,Gb | cc os TEST Ev,Gv | - | -
88 nf os POPCNT Gv,Ev | - | @movrs NP w0 mem MOV Gb,Eb | @movrs os mem MOV Gv,Ev | - | - | - | GRPX1A Bq,Rq
A0 - | - | - | - | - | nd nf os SHLD Ev,Gv | - | -
A8 - | - | - | - | - | nd nf os SHRD Ev,Gv | - | nd nf os IMUL Gv,Ev
C0 NP GRPX2 Eb,Ib | os GRPX2 Ev,Ib | - | - | - | - | - | -
D0 NP GRPX2 Eb,1 | os GRPX2 Ev,1 | NP GRPX2 Eb,CL | os GRPX2 Ev,CL | - | - | - | -
F0 F3 mem INVEPT Gr,Mdq ; NP CRC32 Gy,Eb | F3 mem INVVPID Gr,Mdq ; os CRC32 Gy,Ev | @invpcid F3 mem INVPCID Gr,Mdq ; - | - | nf os TZCNT Gv,Ev | nf os LZCNT Gv,Ev | NP GRPX3 Eb | os GRPX3 Ev
F8 @movdir64b 66 mem MOVDIR64B Gq,Mdq | @movdiri NP mem MOVNTI My,Gy | - | - | @rao_int mem NP AADD My,Gy ; @rao_int mem 66 AAND My,Gy ; @rao_int mem F3 AXOR My,Gy ; @rao_int mem F2 AOR My,Gy | - | NP GRPX4 Eb | os GRPX5 Ev
`;

/** VEX and EVEX map 2, behind 0F 38. */
export const VEX_0F38: string = `
E0 @cmpccxadd mem 66 CMPOXADD My,Gy,By | @cmpccxadd mem 66 CMPNOXADD My,Gy,By | @cmpccxadd mem 66 CMPBXADD My,Gy,By | @cmpccxadd mem 66 CMPNBXADD My,Gy,By | @cmpccxadd mem 66 CMPZXADD My,Gy,By | @cmpccxadd mem 66 CMPNZXADD My,Gy,By | @cmpccxadd mem 66 CMPBEXADD My,Gy,By | @cmpccxadd mem 66 CMPNBEXADD My,Gy,By
E8 @cmpccxadd mem 66 CMPSXADD My,Gy,By | @cmpccxadd mem 66 CMPNSXADD My,Gy,By | @cmpccxadd mem 66 CMPPXADD My,Gy,By | @cmpccxadd mem 66 CMPNPXADD My,Gy,By | @cmpccxadd mem 66 CMPLXADD My,Gy,By | @cmpccxadd mem 66 CMPNLXADD My,Gy,By | @cmpccxadd mem 66 CMPLEXADD My,Gy,By | @cmpccxadd mem 66 CMPNLEXADD My,Gy,By
F0 - | - | @bmi1 nf NP ANDN Gy,By,Ey | NP GRPX17 By,Ey | - | @bmi2 nf NP BZHI Gy,Ey,By ; @bmi2 F3 PEXT Gy,By,Ey ; @bmi2 F2 PDEP Gy,By,Ey | @bmi2 F2 MULX Gy,By,Ey | @bmi1 nf NP BEXTR Gy,Ey,By ; @bmi2 66 SHLX Gy,Ey,By ; @bmi2 F3 SARX Gy,Ey,By ; @bmi2 F2 SHRX Gy,Ey,By
`;

/** VEX and EVEX map 3, behind 0F 3A. */
export const VEX_0F3A: string = `
F0 @bmi2 F2 RORX Gy,Ey,Ib | - | - | - | - | - | - | -
`;

/** VEX and EVEX map 7: MSR_IMM. */
export const MSR_IMMEDIATE: string = `
F0 - | - | - | - | - | - | GRPX18 Rq,Id | -
`;

/** Opcode extensions by ModRM.reg. */
export const APX_GROUPS: Readonly<Record<string, string>> = {
  GRPX1: "nd nf ADD | nd nf OR | nd ADC | nd SBB | nd nf AND | nd nf SUB | nd nf XOR | cc CMP",
  GRPX1A: "ND NP f64 norsp distinct reg POP2 | - | - | - | - | - | - | -",
  GRPX2: "nd nf ROL | nd nf ROR | nd RCL | nd RCR | nd nf SHL | nd nf SHR | nd nf SHL | nd nf SAR",
  GRPX3: "cc TEST +Iz | cc TEST +Iz | nd NOT | nd nf NEG | nf MUL | nf IMUL | nf DIV | nf IDIV",
  GRPX4: "nd nf INC | nd nf DEC | - | - | - | - | - | -",
  GRPX5: "nd nf INC | nd nf DEC | - | - | - | - | ND NP f64 norsp reg PUSH2 Bq,Rq | -",
  GRPX17: "- | @bmi1 nf BLSR | @bmi1 nf BLSMSK | @bmi1 nf BLSI | - | - | - | -",
  GRPX18:
    "@msr_imm F2 f64 reg RDMSR.imm ; @msr_imm F3 f64 reg WRMSRNS.imm ; - | - | - | - | - | - | - | -",
};
