/**
 * The opcode maps (APM vol. 3, appendix A.2), as the manual prints them: a row of eight per line.
 *
 * An entry is a mnemonic and its operands in the manual's notation: a letter for where the operand is
 * (E = ModRM.rm register or memory, G = ModRM.reg, I = immediate, J = relative target, M = memory only,
 * N/R = register only, T = x87 register ST(ModRM.rm), O = absolute address, S/C/D = segment, control,
 * debug register, Z = register in the opcode's low bits, A = far pointer, V/W = vector register, vector
 * register or memory) and letters for its size (b, w, d, q, dq; t = 80 bits; v = operand size;
 * z = operand size, at most 32 bits; y = 32 or 64; p = far pointer; s = descriptor-table register;
 * bs = byte sign-extended). A size alone gives the operand size of an instruction with implicit
 * operands. Capital names are registers.
 *
 * Words in front qualify: `i64` not in 64-bit mode, `o64` only there, `d64` operand size defaults to 64
 * bits there, `f64` it is always 64, `NP 66 F3 F2` mandatory prefix, `mem reg` form of ModRM,
 * `rexb` only with REX.B, `no2` not with REX2, `rex2` only with it, `w0` not with W = 1, `a64` without an
 * address-size prefix, `@x` only where the processor has feature x. `;` separates alternatives, the first that fits counts. `-` is undefined (#UD), as are instructions of
 * features that CPUID does not report. A name after `?` is part of every 64-bit processor and not
 * implemented here: meeting it stops the machine with an error that names it.
 *
 * @module
 */

/** One-byte opcodes. */
export const ONE_BYTE = `
00 ADD Eb,Gb | ADD Ev,Gv | ADD Gb,Eb | ADD Gv,Ev | ADD AL,Ib | ADD rAX,Iz | i64 PUSHSEG ES | i64 POPSEG ES
08 OR Eb,Gb | OR Ev,Gv | OR Gb,Eb | OR Gv,Ev | OR AL,Ib | OR rAX,Iz | i64 PUSHSEG CS | -
10 ADC Eb,Gb | ADC Ev,Gv | ADC Gb,Eb | ADC Gv,Ev | ADC AL,Ib | ADC rAX,Iz | i64 PUSHSEG SS | i64 POPSEG SS
18 SBB Eb,Gb | SBB Ev,Gv | SBB Gb,Eb | SBB Gv,Ev | SBB AL,Ib | SBB rAX,Iz | i64 PUSHSEG DS | i64 POPSEG DS
20 AND Eb,Gb | AND Ev,Gv | AND Gb,Eb | AND Gv,Ev | AND AL,Ib | AND rAX,Iz | - | i64 DAA b
28 SUB Eb,Gb | SUB Ev,Gv | SUB Gb,Eb | SUB Gv,Ev | SUB AL,Ib | SUB rAX,Iz | - | i64 DAS b
30 XOR Eb,Gb | XOR Ev,Gv | XOR Gb,Eb | XOR Gv,Ev | XOR AL,Ib | XOR rAX,Iz | - | i64 AAA b
38 CMP Eb,Gb | CMP Ev,Gv | CMP Gb,Eb | CMP Gv,Ev | CMP AL,Ib | CMP rAX,Iz | - | i64 AAS b
40 INC Zv | INC Zv | INC Zv | INC Zv | INC Zv | INC Zv | INC Zv | INC Zv
48 DEC Zv | DEC Zv | DEC Zv | DEC Zv | DEC Zv | DEC Zv | DEC Zv | DEC Zv
50 d64 PUSH Zv | d64 PUSH Zv | d64 PUSH Zv | d64 PUSH Zv | d64 PUSH Zv | d64 PUSH Zv | d64 PUSH Zv | d64 PUSH Zv
58 d64 POP Zv | d64 POP Zv | d64 POP Zv | d64 POP Zv | d64 POP Zv | d64 POP Zv | d64 POP Zv | d64 POP Zv
60 i64 PUSHA v | i64 POPA v | i64 BOUND Gv,Mv ; - | o64 MOVSXD Gv,Ed ; i64 ARPL Ew,Gw | - | - | - | -
68 d64 PUSH Iz | IMUL Gv,Ev,Iz | d64 PUSH Ibs | IMUL Gv,Ev,Ibs | INS b | INS z | OUTS b | OUTS z
70 f64 JO Jb | f64 JNO Jb | f64 JB Jb | f64 JNB Jb | f64 JZ Jb | f64 JNZ Jb | f64 JBE Jb | f64 JNBE Jb
78 f64 JS Jb | f64 JNS Jb | f64 JP Jb | f64 JNP Jb | f64 JL Jb | f64 JNL Jb | f64 JLE Jb | f64 JNLE Jb
80 GRP1 Eb,Ib | GRP1 Ev,Iz | i64 GRP1 Eb,Ib | GRP1 Ev,Ibs | TEST Eb,Gb | TEST Ev,Gv | XCHG Eb,Gb | XCHG Ev,Gv
88 MOV Eb,Gb | MOV Ev,Gv | MOV Gb,Eb | MOV Gv,Ev | MOVFROMSEG Ev,Sw | LEA Gv,Mv | MOVTOSEG Sw,Ew | GRP1A Ev
90 F3 PAUSE ; rexb XCHG Zv,rAX ; NOP | XCHG Zv,rAX | XCHG Zv,rAX | XCHG Zv,rAX | XCHG Zv,rAX | XCHG Zv,rAX | XCHG Zv,rAX | XCHG Zv,rAX
98 CBW v | CWD v | i64 CALLF Ap | FWAIT | d64 PUSHF v | d64 POPF v | i64 SAHF ; @lahf_lm SAHF ; - | i64 LAHF ; @lahf_lm LAHF ; -
A0 MOV AL,Ob | rex2 NP w0 a64 JMPABS Iq ; rex2 - ; MOV rAX,Ov | MOV Ob,AL | MOV Ov,rAX | MOVS b | MOVS v | CMPS b | CMPS v
A8 TEST AL,Ib | TEST rAX,Iz | STOS b | STOS v | LODS b | LODS v | SCAS b | SCAS v
B0 MOV Zb,Ib | MOV Zb,Ib | MOV Zb,Ib | MOV Zb,Ib | MOV Zb,Ib | MOV Zb,Ib | MOV Zb,Ib | MOV Zb,Ib
B8 MOV Zv,Iv | MOV Zv,Iv | MOV Zv,Iv | MOV Zv,Iv | MOV Zv,Iv | MOV Zv,Iv | MOV Zv,Iv | MOV Zv,Iv
C0 GRP2 Eb,Ib | GRP2 Ev,Ib | f64 RET Iw | f64 RET v | i64 mem LES Gz,Mp ; - | i64 mem LDS Gz,Mp ; - | GRP11 Eb,Ib | GRP11 Ev,Iz
C8 d64 ENTER Iw,Ib | d64 LEAVE v | RETF Iw | RETF v | INT3 | INT Ib | i64 INTO | IRET v
D0 GRP2 Eb,1 | GRP2 Ev,1 | GRP2 Eb,CL | GRP2 Ev,CL | i64 AAM Ib | i64 AAD Ib | i64 SALC b | XLAT b
D8 GRPD8 | GRPD9 | GRPDA | GRPDB | GRPDC | GRPDD | GRPDE | GRPDF
E0 f64 LOOPNE Jb | f64 LOOPE Jb | f64 LOOP Jb | f64 JRCXZ Jb | IN AL,Ib | IN eAX,Ib | OUT Ib,AL | OUT Ib,eAX
E8 f64 CALL Jz | f64 JMP Jz | i64 JMPF Ap | f64 JMP Jb | IN AL,DX | IN eAX,DX | OUT DX,AL | OUT DX,eAX
F0 - | INT1 | - | - | HLT | CMC | GRP3 Eb | GRP3 Ev
F8 CLC | STC | CLI | STI | CLD | STD | GRP4 Eb | GRP5 Ev
`;

/** Opcodes behind 0F. */
export const TWO_BYTE = `
00 GRP6 Ew | GRP7 M | LAR Gv,Ew | LSL Gv,Ew | - | SYSCALL | CLTS | SYSRET v
08 INVD | @wbnoinvd F3 WBNOINVD ; WBINVD | - | UD2 | - | NOP Ev | - | -
18 GRP16 Ev | NOP Ev | NOP Ev | NOP Ev | NOP Ev | NOP Ev | reg F3 GRP1E Ry ; NOP Ev | NOP Ev
20 MOVFROMCR Rr,Cr | MOVFROMDR Rr,Dr | MOVTOCR Cr,Rr | MOVTODR Dr,Rr | - | - | - | -
30 WRMSR | RDTSC | RDMSR | RDPMC | SYSENTER | SYSEXIT v | - | -
38 - | - | - | - | - | - | - | -
40 CMOVO Gv,Ev | CMOVNO Gv,Ev | CMOVB Gv,Ev | CMOVNB Gv,Ev | CMOVZ Gv,Ev | CMOVNZ Gv,Ev | CMOVBE Gv,Ev | CMOVNBE Gv,Ev
48 CMOVS Gv,Ev | CMOVNS Gv,Ev | CMOVP Gv,Ev | CMOVNP Gv,Ev | CMOVL Gv,Ev | CMOVNL Gv,Ev | CMOVLE Gv,Ev | CMOVNLE Gv,Ev
78 NP VMREAD Er,Gr ; @sse4a 66 GRP17 ; @sse4a F2 reg INSERTQ Vdq,Udq,Iw ; - | NP VMWRITE Gr,Er ; @sse4a 66 reg EXTRQ Vdq,Udq ; @sse4a F2 reg INSERTQ Vdq,Udq ; - | - | - | @pni 66 HADDPD Vdq,Wdq ; @pni F2 HADDPS Vdq,Wdq | @pni 66 HSUBPD Vdq,Wdq ; @pni F2 HSUBPS Vdq,Wdq | @sse2 66 MOVD Ey,Vdq ; @sse2 F3 MOVQ Vdq,Wq | @sse2 66 MOVDQA Wdq,Vdq ; @sse2 F3 MOVDQU Wdq,Vdq
80 f64 JO Jz | f64 JNO Jz | f64 JB Jz | f64 JNB Jz | f64 JZ Jz | f64 JNZ Jz | f64 JBE Jz | f64 JNBE Jz
88 f64 JS Jz | f64 JNS Jz | f64 JP Jz | f64 JNP Jz | f64 JL Jz | f64 JNL Jz | f64 JLE Jz | f64 JNLE Jz
90 SETO Eb | SETNO Eb | SETB Eb | SETNB Eb | SETZ Eb | SETNZ Eb | SETBE Eb | SETNBE Eb
98 SETS Eb | SETNS Eb | SETP Eb | SETNP Eb | SETL Eb | SETNL Eb | SETLE Eb | SETNLE Eb
A0 d64 PUSHSEG FS | d64 POPSEG FS | CPUID | BT Ev,Gv | SHLD Ev,Gv,Ib | SHLD Ev,Gv | - | -
A8 d64 PUSHSEG GS | d64 POPSEG GS | RSM | BTS Ev,Gv | SHRD Ev,Gv,Ib | SHRD Ev,Gv | GRP15 | IMUL Gv,Ev
B0 CMPXCHG Eb,Gb | CMPXCHG Ev,Gv | LSS Gz,Mp | BTR Ev,Gv | LFS Gz,Mp | LGS Gz,Mp | MOVZX Gv,Eb | MOVZX Gv,Ew
B8 @popcnt F3 POPCNT Gv,Ev ; - | UD1 Gv,Ev | GRP8 Ev,Ib | BTC Ev,Gv | @bmi1 F3 TZCNT Gv,Ev ; BSF Gv,Ev | @abm F3 LZCNT Gv,Ev ; BSR Gv,Ev | MOVSX Gv,Eb | MOVSX Gv,Ew
C0 XADD Eb,Gb | XADD Ev,Gv | @sse NP CMPPS Vdq,Wdq,Ib ; @sse2 66 CMPPD Vdq,Wdq,Ib ; @sse F3 CMPSS Vdq,Wd,Ib ; @sse2 F2 CMPSD Vdq,Wq,Ib | NP MOVNTI My,Gy | @sse2 66 reg PINSRW Vdq,Rd,Ib ; @sse2 66 mem PINSRW Vdq,Mw,Ib | @sse2 66 reg PEXTRW Gd,Udq,Ib ; - | @sse NP SHUFPS Vdq,Wdq,Ib ; @sse2 66 SHUFPD Vdq,Wdq,Ib | GRP9
C8 BSWAP Zv | BSWAP Zv | BSWAP Zv | BSWAP Zv | BSWAP Zv | BSWAP Zv | BSWAP Zv | BSWAP Zv
`;

/** Opcodes behind 0F 38. */
export const MAP_0F38 = `
80 66 INVEPT Gr,Mdq ; - | 66 INVVPID Gr,Mdq ; - | @invpcid 66 INVPCID Gr,Mdq ; - | - | - | - | - | -
88 - | - | @movrs NP mem MOV Gb,Eb | @movrs NP mem MOV Gv,Ev ; @movrs 66 mem MOV Gv,Ev | - | - | - | -
F0 @sse4_2 F2 CRC32 Gy,Eb ; @movbe MOVBE Gv,Mv ; - | @sse4_2 F2 CRC32 Gy,Ev ; @movbe MOVBE Mv,Gv ; - | - | - | - | @shstk mem 66 WRUSS My,Gy ; - | @adx 66 ADCX Gy,Ey ; @adx F3 ADOX Gy,Ey ; @shstk mem NP WRSS My,Gy ; - | -
F8 @movdir64b 66 MOVDIR64B Gq,Mdq | @movdiri NP mem MOVNTI My,Gy | - | - | @rao_int mem NP AADD My,Gy ; @rao_int mem 66 AAND My,Gy ; @rao_int mem F3 AXOR My,Gy ; @rao_int mem F2 AOR My,Gy | - | - | -
`;

/** Opcode extensions by ModRM.reg; operands given here come in place of the opcode's. */
export const GROUPS: Readonly<Record<string, string>> = {
  GRP1: "ADD | OR | ADC | SBB | AND | SUB | XOR | CMP",
  GRP1A: "d64 POP Ev | - | - | - | - | - | - | -",
  GRP2: "ROL | ROR | RCL | RCR | SHL | SHR | SHL | SAR",
  GRP3: "TEST +Iz | TEST +Iz | NOT | NEG | MUL | IMUL | DIV | IDIV",
  GRP4: "INC | DEC | - | - | - | - | - | -",
  GRP5: "INC | DEC | f64 CALLIND Ev | CALLFIND Mp | f64 JMPIND Ev | JMPFIND Mp | d64 PUSH Ev | -",
  GRP6: "SLDT Ev | STR Ev | LLDT Ew | LTR Ew | VERR Ew | VERW Ew | - | -",
  GRP7:
    "mem SGDT Ms ; reg GRP7.0 | mem SIDT Ms ; reg GRP7.1 | mem LGDT Ms ; reg GRP7.2 | mem LIDT Ms ; reg GRP7.3 | mem SMSW Mw ; SMSW Rv | reg GRP7.5 ; @shstk mem F3 RSTORSSP Mq ; - | LMSW Ew | mem INVLPG Mb ; reg GRP7.7",
  GRP8: "- | - | - | - | BT | BTS | BTR | BTC",
  GRP9:
    "- | mem CMPXCHG8B Mq | - | @xsaves no2 mem NP XRSTORS Mb | @xsavec no2 mem NP XSAVEC Mb | @xsaves no2 mem NP XSAVES Mb | NP mem VMPTRLD Mq ; 66 mem VMCLEAR Mq ; F3 mem VMXON Mq ; @rdrand reg os RDRAND Rv ; - | NP mem VMPTRST Mq ; @rdpid reg F3 RDPID Rr ; @rdseed reg os RDSEED Rv ; -",
  GRP11: "MOV | - | - | - | - | - | - | -",
  GRP15:
    "mem NP FXSAVE Mb ; @fsgsbase reg F3 o64 RDFSBASE Ry ; - | mem NP FXRSTOR Mb ; @fsgsbase reg F3 o64 RDGSBASE Ry ; - | @sse mem NP LDMXCSR Md ; @fsgsbase reg F3 o64 WRFSBASE Ry ; - | @sse mem NP STMXCSR Md ; @fsgsbase reg F3 o64 WRGSBASE Ry ; - | no2 mem NP XSAVE Mb | no2 mem NP XRSTOR Mb ; reg NP FENCE ; @shstk reg F3 INCSSP Ry | @xsaveopt no2 mem NP XSAVEOPT Mb ; @clwb mem 66 CLWB Mb ; reg NP FENCE ; @shstk mem F3 CLRSSBSY Mq | reg NP FENCE ; mem NP CLFLUSH Mb ; @clflushopt mem 66 CLFLUSHOPT Mb ; -",
  GRP1E: "NOP | @shstk RDSSP ; NOP | NOP | NOP | NOP | NOP | NOP | GRP1E.7",
  GRP17: "reg EXTRQ Udq,Iw | - | - | - | - | - | - | -",
  GRP16: "NOP Ev | NOP Ev | NOP Ev | NOP Ev | NOP Ev | NOP Ev | NOP Ev | NOP Ev",
};

/** Second-level extensions by ModRM.rm, for register forms of 0F 01 and of x87 instructions. */
export const SUBGROUPS: Readonly<Record<string, string>> = {
  "GRP1E.7": "NOP | NOP | @ibt ENDBR64 ; NOP | @ibt ENDBR32 ; NOP | NOP | NOP | NOP | NOP",
  "GRP7.0":
    "- | NP VMCALL ; - | NP VMLAUNCH ; - | NP VMRESUME ; - | NP VMXOFF ; - | - | @wrmsrns NP WRMSRNS | -",
  "GRP7.1":
    "@monitor MONITOR ; - | @monitor MWAIT ; - | @smap CLAC ; - | @smap STAC ; - | - | - | - | -",
  "GRP7.2": "NP XGETBV | NP XSETBV | - | - | NP VMFUNC ; - | - | - | -",
  "GRP7.3": "VMRUN | VMMCALL | VMLOAD | VMSAVE | STGI | CLGI | SKINIT | INVLPGA",
  "GRP7.5":
    "@serialize NP SERIALIZE ; @shstk F3 SETSSBSY ; - | - | @shstk F3 SAVEPREVSSP ; - | - | - | - | @pku NP RDPKRU ; - | @pku NP WRPKRU ; -",
  "GRP7.7":
    "o64 SWAPGS | @rdtscp RDTSCP ; - | @mwaitx MONITORX ; - | @mwaitx MWAITX ; - | @clzero CLZERO ; - | @rdpru RDPRU ; - | - | -",
};

/** Mnemonics that take a LOCK prefix when their destination is memory (APM vol. 3, 1.2.5). */
export const LOCKABLE: ReadonlySet<string> = new Set(
  "ADD ADC AND BTC BTR BTS CMPXCHG CMPXCHG8B DEC INC NEG NOT OR SBB SUB XADD XCHG XOR".split(" "),
);
