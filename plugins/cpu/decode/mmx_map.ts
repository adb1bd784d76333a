/**
 * Rows of the opcode maps that belong to MMX (APM vol. 5; vol. 3, appendix A.2), in the notation of
 * `opcode_map.ts`. Each cell stands before that of the same opcode in `sse_map.ts`.
 *
 * P is the MMX register in ModRM.reg, Q the MMX register or memory in ModRM.rm, N the register there
 * alone. What came with SSE, SSE2 and SSSE3 needs those.
 *
 * @module
 */

/** Opcodes behind 0F. */
export const MMX_0F =
  `28 - | - | @sse NP CVTPI2PS Vdq,Qq ; @sse2 66 CVTPI2PD Vdq,Qq | - | @sse NP CVTTPS2PI Pq,Wq ; @sse2 66 CVTTPD2PI Pq,Wdq | @sse NP CVTPS2PI Pq,Wq ; @sse2 66 CVTPD2PI Pq,Wdq | - | -
60 @mmx NP PUNPCKLBW.mm Pq,Qd | @mmx NP PUNPCKLWD.mm Pq,Qd | @mmx NP PUNPCKLDQ.mm Pq,Qd | @mmx NP PACKSSWB.mm Pq,Qq | @mmx NP PCMPGTB.mm Pq,Qq | @mmx NP PCMPGTW.mm Pq,Qq | @mmx NP PCMPGTD.mm Pq,Qq | @mmx NP PACKUSWB.mm Pq,Qq
68 @mmx NP PUNPCKHBW.mm Pq,Qq | @mmx NP PUNPCKHWD.mm Pq,Qq | @mmx NP PUNPCKHDQ.mm Pq,Qq | @mmx NP PACKSSDW.mm Pq,Qq | - | - | @mmx NP MOVD.mm Pq,Ey | @mmx NP MOVQ.mm Pq,Qq
70 @sse NP PSHUFW.mm Pq,Qq,Ib | @mmx NP GRP12.mm Nq,Ib | @mmx NP GRP13.mm Nq,Ib | @mmx NP GRP14.mm Nq,Ib | @mmx NP PCMPEQB.mm Pq,Qq | @mmx NP PCMPEQW.mm Pq,Qq | @mmx NP PCMPEQD.mm Pq,Qq | @mmx NP EMMS
78 - | - | - | - | - | - | @mmx NP MOVD.mm Ey,Pq | @mmx NP MOVQ.mm Qq,Pq
C0 - | - | - | - | @sse NP reg PINSRW.mm Pq,Rd,Ib ; @sse NP mem PINSRW.mm Pq,Mw,Ib | @sse NP reg PEXTRW.mm Gd,Nq,Ib | - | -
D0 - | @mmx NP PSRLW.mm Pq,Qq | @mmx NP PSRLD.mm Pq,Qq | @mmx NP PSRLQ.mm Pq,Qq | @sse2 NP PADDQ.mm Pq,Qq | @mmx NP PMULLW.mm Pq,Qq | @sse2 F3 reg MOVQ2DQ Vdq,Nq ; @sse2 F2 reg MOVDQ2Q Pq,Udq | @sse NP reg PMOVMSKB.mm Gd,Nq
D8 @mmx NP PSUBUSB.mm Pq,Qq | @mmx NP PSUBUSW.mm Pq,Qq | @sse NP PMINUB.mm Pq,Qq | @mmx NP PAND.mm Pq,Qq | @mmx NP PADDUSB.mm Pq,Qq | @mmx NP PADDUSW.mm Pq,Qq | @sse NP PMAXUB.mm Pq,Qq | @mmx NP PANDN.mm Pq,Qq
E0 @sse NP PAVGB.mm Pq,Qq | @mmx NP PSRAW.mm Pq,Qq | @mmx NP PSRAD.mm Pq,Qq | @sse NP PAVGW.mm Pq,Qq | @sse NP PMULHUW.mm Pq,Qq | @mmx NP PMULHW.mm Pq,Qq | - | @sse NP mem MOVNTQ Mq,Pq
E8 @mmx NP PSUBSB.mm Pq,Qq | @mmx NP PSUBSW.mm Pq,Qq | @sse NP PMINSW.mm Pq,Qq | @mmx NP POR.mm Pq,Qq | @mmx NP PADDSB.mm Pq,Qq | @mmx NP PADDSW.mm Pq,Qq | @sse NP PMAXSW.mm Pq,Qq | @mmx NP PXOR.mm Pq,Qq
F0 - | @mmx NP PSLLW.mm Pq,Qq | @mmx NP PSLLD.mm Pq,Qq | @mmx NP PSLLQ.mm Pq,Qq | @sse2 NP PMULUDQ.mm Pq,Qq | @mmx NP PMADDWD.mm Pq,Qq | @sse NP PSADBW.mm Pq,Qq | @sse NP reg MASKMOVQ Pq,Nq
F8 @mmx NP PSUBB.mm Pq,Qq | @mmx NP PSUBW.mm Pq,Qq | @mmx NP PSUBD.mm Pq,Qq | @sse2 NP PSUBQ.mm Pq,Qq | @mmx NP PADDB.mm Pq,Qq | @mmx NP PADDW.mm Pq,Qq | @mmx NP PADDD.mm Pq,Qq | -
`;

/** Opcodes behind 0F 38. */
export const MMX_0F38 =
  `00 @ssse3 NP PSHUFB.mm Pq,Qq | @ssse3 NP PHADDW.mm Pq,Qq | @ssse3 NP PHADDD.mm Pq,Qq | @ssse3 NP PHADDSW.mm Pq,Qq | @ssse3 NP PMADDUBSW.mm Pq,Qq | @ssse3 NP PHSUBW.mm Pq,Qq | @ssse3 NP PHSUBD.mm Pq,Qq | @ssse3 NP PHSUBSW.mm Pq,Qq
08 @ssse3 NP PSIGNB.mm Pq,Qq | @ssse3 NP PSIGNW.mm Pq,Qq | @ssse3 NP PSIGND.mm Pq,Qq | @ssse3 NP PMULHRSW.mm Pq,Qq | - | - | - | -
18 - | - | - | - | @ssse3 NP PABSB.mm Pq,Qq | @ssse3 NP PABSW.mm Pq,Qq | @ssse3 NP PABSD.mm Pq,Qq | -
`;

/** Opcodes behind 0F 3A. */
export const MMX_0F3A = `08 - | - | - | - | - | - | - | @ssse3 NP PALIGNR.mm Pq,Qq,Ib
`;

/** Shifts by a constant, by ModRM.reg. */
export const MMX_GROUPS: Readonly<Record<string, string>> = {
  "GRP12.mm": "- | - | reg PSRLW.mm ; - | - | reg PSRAW.mm ; - | - | reg PSLLW.mm ; - | -",
  "GRP13.mm": "- | - | reg PSRLD.mm ; - | - | reg PSRAD.mm ; - | - | reg PSLLD.mm ; - | -",
  "GRP14.mm": "- | - | reg PSRLQ.mm ; - | - | - | - | reg PSLLQ.mm ; - | -",
};
