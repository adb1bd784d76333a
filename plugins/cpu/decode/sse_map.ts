/**
 * Rows of the opcode maps that belong to SSE and its successors, legacy encodings, in the notation of
 * `opcode_map.ts` (APM vol. 3, appendix A.2; vol. 4).
 *
 * V is the vector register in ModRM.reg, W the vector register or memory in ModRM.rm, U the register
 * there alone. What memory is read of depends on the instruction, so sizes are given in bits of that:
 * dq is 128.
 *
 * @module
 */

/** Rows behind 0F. */
export const SSE_0F =
  `10 @sse NP MOVUPS Vdq,Wdq ; @sse2 66 MOVUPD Vdq,Wdq ; @sse F3 MOVSS Vdq,Wd ; @sse2 F2 MOVSD Vdq,Wq | @sse NP MOVUPS Wdq,Vdq ; @sse2 66 MOVUPD Wdq,Vdq ; @sse F3 MOVSS Wd,Vdq ; @sse2 F2 MOVSD Wq,Vdq | @sse NP mem MOVLPS Vdq,Mq ; @sse NP MOVHLPS Vdq,Udq ; @sse2 66 mem MOVLPD Vdq,Mq ; @pni F3 MOVSLDUP Vdq,Wdq ; @pni F2 MOVDDUP Vdq,Wq | @sse NP mem MOVLPS Mq,Vdq ; @sse2 66 mem MOVLPD Mq,Vdq | @sse NP UNPCKLPS Vdq,Wdq ; @sse2 66 UNPCKLPD Vdq,Wdq | @sse NP UNPCKHPS Vdq,Wdq ; @sse2 66 UNPCKHPD Vdq,Wdq | @sse NP mem MOVHPS Vdq,Mq ; @sse NP MOVLHPS Vdq,Udq ; @sse2 66 mem MOVHPD Vdq,Mq ; @pni F3 MOVSHDUP Vdq,Wdq | @sse NP mem MOVHPS Mq,Vdq ; @sse2 66 mem MOVHPD Mq,Vdq
28 @sse NP MOVAPS Vdq,Wdq ; @sse2 66 MOVAPD Vdq,Wdq | @sse NP MOVAPS Wdq,Vdq ; @sse2 66 MOVAPD Wdq,Vdq | @sse F3 CVTSI2SS Vdq,Ey ; @sse2 F2 CVTSI2SD Vdq,Ey | @sse NP mem MOVNTPS Mdq,Vdq ; @sse2 66 mem MOVNTPD Mdq,Vdq ; @sse4a F3 mem MOVNTSS Md,Vdq ; @sse4a F2 mem MOVNTSD Mq,Vdq | @sse F3 CVTTSS2SI Gy,Wd ; @sse2 F2 CVTTSD2SI Gy,Wq | @sse F3 CVTSS2SI Gy,Wd ; @sse2 F2 CVTSD2SI Gy,Wq | @sse NP UCOMISS Vdq,Wd ; @sse2 66 UCOMISD Vdq,Wq | @sse NP COMISS Vdq,Wd ; @sse2 66 COMISD Vdq,Wq
50 @sse NP reg MOVMSKPS Gd,Udq ; @sse2 66 reg MOVMSKPD Gd,Udq | @sse NP SQRTPS Vdq,Wdq ; @sse2 66 SQRTPD Vdq,Wdq ; @sse F3 SQRTSS Vdq,Wd ; @sse2 F2 SQRTSD Vdq,Wq | @sse NP RSQRTPS Vdq,Wdq ; @sse F3 RSQRTSS Vdq,Wd | @sse NP RCPPS Vdq,Wdq ; @sse F3 RCPSS Vdq,Wd | @sse NP ANDPS Vdq,Wdq ; @sse2 66 ANDPD Vdq,Wdq | @sse NP ANDNPS Vdq,Wdq ; @sse2 66 ANDNPD Vdq,Wdq | @sse NP ORPS Vdq,Wdq ; @sse2 66 ORPD Vdq,Wdq | @sse NP XORPS Vdq,Wdq ; @sse2 66 XORPD Vdq,Wdq
58 @sse NP ADDPS Vdq,Wdq ; @sse2 66 ADDPD Vdq,Wdq ; @sse F3 ADDSS Vdq,Wd ; @sse2 F2 ADDSD Vdq,Wq | @sse NP MULPS Vdq,Wdq ; @sse2 66 MULPD Vdq,Wdq ; @sse F3 MULSS Vdq,Wd ; @sse2 F2 MULSD Vdq,Wq | @sse2 NP CVTPS2PD Vdq,Wq ; @sse2 66 CVTPD2PS Vdq,Wdq ; @sse2 F3 CVTSS2SD Vdq,Wd ; @sse2 F2 CVTSD2SS Vdq,Wq | @sse2 NP CVTDQ2PS Vdq,Wdq ; @sse2 66 CVTPS2DQ Vdq,Wdq ; @sse2 F3 CVTTPS2DQ Vdq,Wdq | @sse NP SUBPS Vdq,Wdq ; @sse2 66 SUBPD Vdq,Wdq ; @sse F3 SUBSS Vdq,Wd ; @sse2 F2 SUBSD Vdq,Wq | @sse NP MINPS Vdq,Wdq ; @sse2 66 MINPD Vdq,Wdq ; @sse F3 MINSS Vdq,Wd ; @sse2 F2 MINSD Vdq,Wq | @sse NP DIVPS Vdq,Wdq ; @sse2 66 DIVPD Vdq,Wdq ; @sse F3 DIVSS Vdq,Wd ; @sse2 F2 DIVSD Vdq,Wq | @sse NP MAXPS Vdq,Wdq ; @sse2 66 MAXPD Vdq,Wdq ; @sse F3 MAXSS Vdq,Wd ; @sse2 F2 MAXSD Vdq,Wq
60 @sse2 66 PUNPCKLBW Vdq,Wdq | @sse2 66 PUNPCKLWD Vdq,Wdq | @sse2 66 PUNPCKLDQ Vdq,Wdq | @sse2 66 PACKSSWB Vdq,Wdq | @sse2 66 PCMPGTB Vdq,Wdq | @sse2 66 PCMPGTW Vdq,Wdq | @sse2 66 PCMPGTD Vdq,Wdq | @sse2 66 PACKUSWB Vdq,Wdq
68 @sse2 66 PUNPCKHBW Vdq,Wdq | @sse2 66 PUNPCKHWD Vdq,Wdq | @sse2 66 PUNPCKHDQ Vdq,Wdq | @sse2 66 PACKSSDW Vdq,Wdq | @sse2 66 PUNPCKLQDQ Vdq,Wdq | @sse2 66 PUNPCKHQDQ Vdq,Wdq | @sse2 66 MOVD Vdq,Ey | @sse2 66 MOVDQA Vdq,Wdq ; @sse2 F3 MOVDQU Vdq,Wdq
70 @sse2 66 PSHUFD Vdq,Wdq,Ib ; @sse2 F3 PSHUFHW Vdq,Wdq,Ib ; @sse2 F2 PSHUFLW Vdq,Wdq,Ib | GRP12 | GRP13 | GRP14 | @sse2 66 PCMPEQB Vdq,Wdq | @sse2 66 PCMPEQW Vdq,Wdq | @sse2 66 PCMPEQD Vdq,Wdq | -
D0 @pni 66 ADDSUBPD Vdq,Wdq ; @pni F2 ADDSUBPS Vdq,Wdq | @sse2 66 PSRLW Vdq,Wdq | @sse2 66 PSRLD Vdq,Wdq | @sse2 66 PSRLQ Vdq,Wdq | @sse2 66 PADDQ Vdq,Wdq | @sse2 66 PMULLW Vdq,Wdq | @sse2 66 MOVQ Wq,Vdq | @sse2 66 reg PMOVMSKB Gd,Udq
D8 @sse2 66 PSUBUSB Vdq,Wdq | @sse2 66 PSUBUSW Vdq,Wdq | @sse2 66 PMINUB Vdq,Wdq | @sse2 66 PAND Vdq,Wdq | @sse2 66 PADDUSB Vdq,Wdq | @sse2 66 PADDUSW Vdq,Wdq | @sse2 66 PMAXUB Vdq,Wdq | @sse2 66 PANDN Vdq,Wdq
E0 @sse2 66 PAVGB Vdq,Wdq | @sse2 66 PSRAW Vdq,Wdq | @sse2 66 PSRAD Vdq,Wdq | @sse2 66 PAVGW Vdq,Wdq | @sse2 66 PMULHUW Vdq,Wdq | @sse2 66 PMULHW Vdq,Wdq | @sse2 66 CVTTPD2DQ Vdq,Wdq ; @sse2 F3 CVTDQ2PD Vdq,Wq ; @sse2 F2 CVTPD2DQ Vdq,Wdq | @sse2 66 mem MOVNTDQ Mdq,Vdq
E8 @sse2 66 PSUBSB Vdq,Wdq | @sse2 66 PSUBSW Vdq,Wdq | @sse2 66 PMINSW Vdq,Wdq | @sse2 66 POR Vdq,Wdq | @sse2 66 PADDSB Vdq,Wdq | @sse2 66 PADDSW Vdq,Wdq | @sse2 66 PMAXSW Vdq,Wdq | @sse2 66 PXOR Vdq,Wdq
F0 @pni F2 mem LDDQU Vdq,Mdq | @sse2 66 PSLLW Vdq,Wdq | @sse2 66 PSLLD Vdq,Wdq | @sse2 66 PSLLQ Vdq,Wdq | @sse2 66 PMULUDQ Vdq,Wdq | @sse2 66 PMADDWD Vdq,Wdq | @sse2 66 PSADBW Vdq,Wdq | @sse2 66 reg MASKMOVDQU Vdq,Udq
F8 @sse2 66 PSUBB Vdq,Wdq | @sse2 66 PSUBW Vdq,Wdq | @sse2 66 PSUBD Vdq,Wdq | @sse2 66 PSUBQ Vdq,Wdq | @sse2 66 PADDB Vdq,Wdq | @sse2 66 PADDW Vdq,Wdq | @sse2 66 PADDD Vdq,Wdq | UD0 Gv,Ev
`;

/** Rows behind 0F 38. */
export const SSE_0F38 =
  `00 @ssse3 66 PSHUFB Vdq,Wdq | @ssse3 66 PHADDW Vdq,Wdq | @ssse3 66 PHADDD Vdq,Wdq | @ssse3 66 PHADDSW Vdq,Wdq | @ssse3 66 PMADDUBSW Vdq,Wdq | @ssse3 66 PHSUBW Vdq,Wdq | @ssse3 66 PHSUBD Vdq,Wdq | @ssse3 66 PHSUBSW Vdq,Wdq
08 @ssse3 66 PSIGNB Vdq,Wdq | @ssse3 66 PSIGNW Vdq,Wdq | @ssse3 66 PSIGND Vdq,Wdq | @ssse3 66 PMULHRSW Vdq,Wdq | - | - | - | -
10 @sse4_1 66 PBLENDVB Vdq,Wdq | - | - | - | @sse4_1 66 BLENDVPS Vdq,Wdq | @sse4_1 66 BLENDVPD Vdq,Wdq | - | @sse4_1 66 PTEST Vdq,Wdq
18 - | - | - | - | @ssse3 66 PABSB Vdq,Wdq | @ssse3 66 PABSW Vdq,Wdq | @ssse3 66 PABSD Vdq,Wdq | -
20 @sse4_1 66 PMOVSXBW Vdq,Wq | @sse4_1 66 PMOVSXBD Vdq,Wd | @sse4_1 66 PMOVSXBQ Vdq,Ww | @sse4_1 66 PMOVSXWD Vdq,Wq | @sse4_1 66 PMOVSXWQ Vdq,Wd | @sse4_1 66 PMOVSXDQ Vdq,Wq | - | -
28 @sse4_1 66 PMULDQ Vdq,Wdq | @sse4_1 66 PCMPEQQ Vdq,Wdq | @sse4_1 66 mem MOVNTDQA Vdq,Mdq | @sse4_1 66 PACKUSDW Vdq,Wdq | - | - | - | -
30 @sse4_1 66 PMOVZXBW Vdq,Wq | @sse4_1 66 PMOVZXBD Vdq,Wd | @sse4_1 66 PMOVZXBQ Vdq,Ww | @sse4_1 66 PMOVZXWD Vdq,Wq | @sse4_1 66 PMOVZXWQ Vdq,Wd | @sse4_1 66 PMOVZXDQ Vdq,Wq | - | @sse4_2 66 PCMPGTQ Vdq,Wdq
38 @sse4_1 66 PMINSB Vdq,Wdq | @sse4_1 66 PMINSD Vdq,Wdq | @sse4_1 66 PMINUW Vdq,Wdq | @sse4_1 66 PMINUD Vdq,Wdq | @sse4_1 66 PMAXSB Vdq,Wdq | @sse4_1 66 PMAXSD Vdq,Wdq | @sse4_1 66 PMAXUW Vdq,Wdq | @sse4_1 66 PMAXUD Vdq,Wdq
40 @sse4_1 66 PMULLD Vdq,Wdq | @sse4_1 66 PHMINPOSUW Vdq,Wdq | - | - | - | - | - | -
C8 @sha_ni NP SHA1NEXTE Vdq,Wdq | @sha_ni NP SHA1MSG1 Vdq,Wdq | @sha_ni NP SHA1MSG2 Vdq,Wdq | @sha_ni NP SHA256RNDS2 Vdq,Wdq | @sha_ni NP SHA256MSG1 Vdq,Wdq | @sha_ni NP SHA256MSG2 Vdq,Wdq | - | -
D8 - | - | - | @aes 66 AESIMC Vdq,Wdq | @aes 66 AESENC Vdq,Wdq | @aes 66 AESENCLAST Vdq,Wdq | @aes 66 AESDEC Vdq,Wdq | @aes 66 AESDECLAST Vdq,Wdq
`;

/** Opcodes behind 0F 3A. */
export const SSE_0F3A =
  `08 @sse4_1 66 ROUNDPS Vdq,Wdq,Ib | @sse4_1 66 ROUNDPD Vdq,Wdq,Ib | @sse4_1 66 ROUNDSS Vdq,Wd,Ib | @sse4_1 66 ROUNDSD Vdq,Wq,Ib | @sse4_1 66 BLENDPS Vdq,Wdq,Ib | @sse4_1 66 BLENDPD Vdq,Wdq,Ib | @sse4_1 66 PBLENDW Vdq,Wdq,Ib | @ssse3 66 PALIGNR Vdq,Wdq,Ib
10 - | - | - | - | @sse4_1 66 reg PEXTRB Rd,Vdq,Ib ; @sse4_1 66 mem PEXTRB Mb,Vdq,Ib | @sse4_1 66 reg PEXTRW Rd,Vdq,Ib ; @sse4_1 66 mem PEXTRW Mw,Vdq,Ib | @sse4_1 66 PEXTRD Ey,Vdq,Ib | @sse4_1 66 EXTRACTPS Ed,Vdq,Ib
20 @sse4_1 66 reg PINSRB Vdq,Rd,Ib ; @sse4_1 66 mem PINSRB Vdq,Mb,Ib | @sse4_1 66 reg INSERTPS Vdq,Udq,Ib ; @sse4_1 66 mem INSERTPS Vdq,Md,Ib | @sse4_1 66 PINSRD Vdq,Ey,Ib | - | - | - | - | -
40 @sse4_1 66 DPPS Vdq,Wdq,Ib | @sse4_1 66 DPPD Vdq,Wdq,Ib | @sse4_1 66 MPSADBW Vdq,Wdq,Ib | - | @pclmulqdq 66 PCLMULQDQ Vdq,Wdq,Ib | - | - | -
60 @sse4_2 66 PCMPESTRM Vdq,Wdq,Ib | @sse4_2 66 PCMPESTRI Vdq,Wdq,Ib | @sse4_2 66 PCMPISTRM Vdq,Wdq,Ib | @sse4_2 66 PCMPISTRI Vdq,Wdq,Ib | - | - | - | -
C8 - | - | - | - | @sha_ni NP SHA1RNDS4 Vdq,Wdq,Ib | - | - | -
D8 - | - | - | - | - | - | - | @aes 66 AESKEYGENASSIST Vdq,Wdq,Ib
`;

/** Shifts by a constant, by ModRM.reg. */
export const SSE_GROUPS: Readonly<Record<string, string>> = {
  GRP12:
    "- | - | @sse2 66 reg PSRLW Udq,Ib | - | @sse2 66 reg PSRAW Udq,Ib | - | @sse2 66 reg PSLLW Udq,Ib | -",
  GRP13:
    "- | - | @sse2 66 reg PSRLD Udq,Ib | - | @sse2 66 reg PSRAD Udq,Ib | - | @sse2 66 reg PSLLD Udq,Ib | -",
  GRP14:
    "- | - | @sse2 66 reg PSRLQ Udq,Ib | @sse2 66 reg PSRLDQ Udq,Ib | - | - | @sse2 66 reg PSLLQ Udq,Ib | @sse2 66 reg PSLLDQ Udq,Ib",
};
