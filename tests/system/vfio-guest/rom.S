/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The guest that works on VFIO devices: a firmware of 64 KiB and nothing else. It looks for mttys (4348:3253) on bus 0, in the
 * order of their slots, at most eight, gives each a port range, and sets its line control register to 0x1b. About fifty times
 * a second it then reads each one's scratch and line control register, prints on the debug console
 *
 *	C <count> <scratch><line control> ...		in hex, two digits for a register, eight for the count
 *
 * counts on, and writes to the i-th device's scratch register the low byte of count + 37 i, for the next line to find. So each
 * line says whether the guest is where it was, and of each device whether it is still what the guest left: one that was reset,
 * or is another one, has 0 for line control ever after. Count and number of devices are in RAM.
 */
	.code16
	.intel_syntax noprefix

	.set COUNT, 0x1000
	.set DEVICES, 0x1004
	.set PORTS, 0xc000		/* of the first device; each has 0x100 */
	.set LINE_CONTROL, 3
	.set SCRATCH, 7
	.set ADDRESS, 0xcf8		/* PCI configuration */
	.set DATA, 0xcfc

	.text
	.globl _start
_start:
	cli
	cld
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7000
	mov [COUNT], eax
	mov [DEVICES], eax

	/* Without its local APIC the processor hears the old interrupt controller. */
	mov ecx, 0x1b			/* IA32_APIC_BASE */
	rdmsr
	and ah, 0xf7
	wrmsr

	/* Interrupt 8, the timer, 50 Hz; no other. */
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
	mov al, 0x34
	out 0x43, al
	mov ax, 23864			/* 1193182 / 50 */
	out 0x40, al
	mov al, ah
	out 0x40, al

	/* ebx: configuration address of a slot; edi: the port range that is next */
	mov ebx, 0x80000000
	mov edi, PORTS
look:
	xor al, al
	call configure
	in eax, dx
	cmp eax, 0x32534348
	jne next
	mov al, 0x10			/* BAR 0 */
	call configure
	mov eax, edi
	out dx, eax
	mov al, 0x04			/* command: I/O */
	call configure
	mov ax, 1
	out dx, ax
	lea dx, [edi + LINE_CONTROL]
	mov al, 0x1b
	out dx, al
	inc word ptr [DEVICES]
	add edi, 0x100
next:
	add ebx, 0x800
	cmp ebx, 0x80010000
	jae found
	cmp word ptr [DEVICES], 8
	jb look
found:
	call write

again:
	sti
	hlt
	cli
	mov al, 'C'
	out 0xe9, al
	mov al, ' '
	out 0xe9, al
	mov eax, [COUNT]
	mov cx, 8
	call hex
	mov di, PORTS
	mov bx, [DEVICES]
read:
	or bx, bx
	jz done
	mov al, ' '
	out 0xe9, al
	lea dx, [di + SCRATCH]
	call register
	lea dx, [di + LINE_CONTROL]
	call register
	add di, 0x100
	dec bx
	jmp read
done:
	mov al, '\n'
	out 0xe9, al
	inc dword ptr [COUNT]
	call write
	jmp again

/* The low byte of count + 37 i to each. */
write:
	mov al, [COUNT]
	mov dx, PORTS + SCRATCH
	mov cx, [DEVICES]
	jcxz 2f
1:	out dx, al
	add al, 37
	add dx, 0x100
	loop 1b
2:	ret

/* What the port dx says, in two digits. */
register:
	in al, dx
	shl eax, 24
	mov cx, 2
	/* falls through */

/* The cx highest digits of eax. */
hex:
	rol eax, 4
	push ax
	and al, 15
	cmp al, 10
	sbb al, 0x69			/* to a digit or a capital letter */
	das
	out 0xe9, al
	pop ax
	loop hex
	ret

/* Points at register al of the slot ebx; dx is where its content is. */
configure:
	push eax
	movzx eax, al
	or eax, ebx
	mov dx, ADDRESS
	out dx, eax
	mov dx, DATA
	pop eax
	ret

tick:
	push ax
	mov al, 0x20
	out 0x20, al
	pop ax
	iret

	.org 0xfff0
	.byte 0xea			/* jmp 0xf000:_start */
	.word _start, 0xf000
	.org 0xffff
	.byte 0
