/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tests' guest: a firmware of 64 KiB and nothing else, so that a QEMU needs no disk, no kernel and no download. It
 * runs from the reset vector in real mode, a hundred ticks a second. At each tick it takes the next of 96 pages, looks
 * whether it still holds what was written to it 96 ticks ago, writes the new count to all of it, and prints one line
 * on the first serial port:
 *
 *	C <count> <pages that were wrong, so far>
 *
 * Count and pages live in RAM: a line that goes on with the next number and no wrong page says that memory and
 * processor went over whole.
 */
	.code16
	.intel_syntax noprefix

	.set COM1, 0x3f8
	.set PAGES, 96
	.set FIRST_PAGE, 0x1000		/* as a segment: at 64 KiB */
	.set COUNT, 0x1000
	.set WRONG, 0x1004
	.set PAGE, 0x1008		/* which one is next */

	.text
	.globl _start
_start:
	cli
	cld
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7000

	/* The local APIC lies above 1 MiB: a look into protected mode leaves ds without a limit. Then its LINT0 is told
	 * to pass on what the old interrupt controller says. */
	lgdt cs:[gdt_pointer]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	mov bx, 8
	mov ds, bx
	and al, 0xfe
	mov cr0, eax
	xor bx, bx
	mov ds, bx
	mov ebx, 0xfee000f0		/* on, spurious vector 0xff */
	mov dword ptr [ebx], 0x1ff
	mov ebx, 0xfee00350		/* LINT0: ExtINT */
	mov dword ptr [ebx], 0x700

	/* Interrupt 8, the timer. */
	mov word ptr [0x20], offset tick
	mov word ptr [0x22], 0xf000
	mov al, 0x11
	out 0x20, al
	mov al, 0x08
	out 0x21, al
	mov al, 0x04
	out 0x21, al
	mov al, 0x01
	out 0x21, al
	mov al, 0xfe
	out 0x21, al
	mov al, 0xff
	out 0xa1, al

	/* 1193182 Hz / 11932 = 100 Hz */
	mov al, 0x34
	out 0x43, al
	mov ax, 11932
	out 0x40, al
	mov al, ah
	out 0x40, al

	mov dword ptr [COUNT], 0
	mov dword ptr [WRONG], 0
	mov dword ptr [PAGE], 0

again:
	sti
	hlt
	cli
	inc dword ptr [COUNT]
	call check_page
	call write_page
	call next_page
	mov al, 'C'
	call put_char
	mov eax, [COUNT]
	call put_number
	mov eax, [WRONG]
	call put_number
	mov al, 10
	call put_char
	jmp again

/* es: the page that is next. */
page_segment:
	mov ax, [PAGE]
	shl ax, 8
	add ax, FIRST_PAGE
	mov es, ax
	ret

/* What was written PAGES ticks ago, or 0 in the first round. */
check_page:
	call page_segment
	xor ebx, ebx
	mov eax, [COUNT]
	cmp eax, PAGES
	jbe 1f
	mov ebx, eax
	sub ebx, PAGES
1:	xor di, di
2:	cmp es:[di], ebx
	jne 3f
	add di, 4
	cmp di, 4096
	jne 2b
	ret
3:	inc dword ptr [WRONG]
	ret

write_page:
	call page_segment
	mov eax, [COUNT]
	xor di, di
	mov cx, 1024
	rep stosd
	ret

next_page:
	inc dword ptr [PAGE]
	cmp dword ptr [PAGE], PAGES
	jne 1f
	mov dword ptr [PAGE], 0
1:	ret

/* A space and eax in decimal. */
put_number:
	push eax
	mov al, ' '
	call put_char
	pop eax
	mov ebx, 10
	xor cx, cx
1:	xor edx, edx
	div ebx
	push dx
	inc cx
	test eax, eax
	jnz 1b
2:	pop ax
	add al, '0'
	call put_char
	loop 2b
	ret

/* Waits until the port takes it: a slow reader makes the guest slow, not wrong. */
put_char:
	push ax
	mov dx, COM1 + 5
1:	in al, dx
	test al, 0x20
	jz 1b
	mov dx, COM1
	pop ax
	out dx, al
	ret

tick:
	push ax
	mov al, 0x20
	out 0x20, al
	pop ax
	iret

	.balign 8
gdt:	.quad 0
	.quad 0x00cf92000000ffff	/* data, from 0 to 4 GiB */
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.long 0xf0000 + gdt

	.org 0xfff0
	.byte 0xea			/* the reset vector: far jump to f000:_start */
	.word _start, 0xf000
	.org 0xffff
	.byte 0
