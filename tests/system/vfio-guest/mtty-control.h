/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What change-mtty adds to Linux's sample driver mtty: a device that does what a test tells it. This half is included where
 * the driver's own types begin, mtty-control.c at its end; in between, each function of the driver that is named here as
 * mtty_plain_* is the driver's own, and the one without "plain" is ours around it.
 *
 * /sys/bus/mdev/devices/UUID/test/ has two files. `status` says the state and what was asked, one "name value..." a line; it
 * takes no lock that a hung state change holds. `control` takes one order each write. FROM>TO is an arc as the driver walks
 * it, by the names of the uAPI without VFIO_DEVICE_STATE_ ("RUNNING_P2P>STOP"); a side may be `*`. ERRNO is a number; TIMES is
 * how often, -1 for always.
 *
 *	delay FROM>TO USEC		sleep so long in the arc, with the state locked, as a driver does that waits for firmware
 *	refuse FROM>TO ERRNO TIMES	fail it, in the state that it was in
 *	error FROM>TO ERRNO TIMES	fail it, and be in ERROR: only a reset leaves that
 *	hang FROM>TO KIND TIMES	stay in it until `release`: KIND 1 gives up when the process is killed, 2 does not
 *	release				lets those go on that hang now, as if nothing had been
 *	read-error BYTE ERRNO TIMES	what reads the data file gets up to BYTE bytes of it, then this
 *	write-error BYTE ERRNO TIMES	the same for what is written
 *	size BYTES			so much state beside the registers, at most 1 GiB; it goes with the device
 *	dirty BYTES			of these, so many become dirty each second in PRE_COPY
 *	verify 0|1			1: compare every byte of that state when it comes, as at rest; 0: its frames only
 *	flags N				VFIO_MIGRATION_*; without P2P or PRE_COPY the arcs are others. 0: no migration at all
 *	logging 0|1			0: no DMA logging is offered
 *	log-error WHAT ERRNO TIMES	WHAT: 0 start, 1 stop, 2 report (on a kernel that can report)
 *	reset-error ERRNO TIMES	VFIO_DEVICE_RESET fails
 *	reset-clears 0|1		it clears the registers too, and `size`
 *	rest				all of these as they were at first, and the counters 0; lets go what hangs
 *
 * With all at rest the device does as the driver's own, but for one mistake of that: a device that was closed in RESUMING, and
 * has no data file, refuses RESUMING>STOP with EINVAL, where the driver's own brings the kernel down.
 */
#ifndef MTTY_CONTROL_H
#define MTTY_CONTROL_H

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

struct mdev_state;
struct mtty_migration_file;

#define MTTY_STATES 8

/* Something that fails so many times more; < 0: always. */
struct mtty_failure {
        int errno;
        int times;
};

struct mtty_arc {
        unsigned int delay_usec;
        int hang, hang_times;
        struct mtty_failure refuse, error;
        unsigned long walked; /* whatever came of it */
};

struct mtty_cut {
        u64 byte;
        struct mtty_failure failure;
};

struct mtty_control {
        struct mtty_arc arcs[MTTY_STATES][MTTY_STATES];
        unsigned long sets[MTTY_STATES]
                          [MTTY_STATES]; /* asked for, by the state at that time and the end that was named */
        wait_queue_head_t released;
        unsigned int releases; /* who hangs waits for another number */
        int hanging;
        struct mtty_cut read_cut, write_cut;
        struct mtty_failure log[3], reset;
        unsigned long resets;
        u64 bytes_read, bytes_written;
        u32 blocks; /* of state beside the registers */
        u64 dirty_rate;
        bool verify, reset_clears;
        struct mutex lock; /* of orders */
};

/*
 * With `size`, what is read is not the driver's own format but this one, which says so in the header's flags: the header;
 * frames, each with `length` bytes behind it; an END frame, behind which the registers come. Frames are numbered, so that a
 * stream from which one is missing is refused.
 */
#define MTTY_FLAG_FRAMES 1
#define MTTY_BLOCK       65536
#define MTTY_PAYLOAD     (MTTY_BLOCK - sizeof(struct mtty_frame))
#define MTTY_MAX_BLOCKS  ((1u << 30) / MTTY_BLOCK)

enum mtty_frame_type { MTTY_FRAME_BLOCK = 1, MTTY_FRAME_END = 2 };

struct mtty_frame {
        u64 magic;
#define MTTY_FRAME_MAGIC 0x6d69676d67722121
        u32 type;
        u32 length;
        u32 index;  /* of the block */
        u32 blocks; /* of the device */
        u64 number;
};

/* One direction of a data file. */
struct mtty_stream {
        struct mtty_frame frame; /* the one that is under way */
        u32 at;                  /* in it and its payload; 0: between two */
        u32 tail;                /* how much of the registers behind the END frame */
        u64 number;              /* of the next frame */
        u32 next;                /* block */
        bool ended;              /* the END frame has begun */

        u32 image;    /* blocks that were never sent */
        u64 dirty;    /* bytes that were sent, and are others by now */
        u64 fraction; /* of a byte, in millionths */
        ktime_t looked;

        bool frames, refused;
        unsigned long *seen;
        u8 *scratch;
};

static struct file *mtty_plain_step_state(struct mdev_state *mdev_state, enum vfio_device_mig_state new);
static struct file *mtty_step_state(struct mdev_state *mdev_state, enum vfio_device_mig_state new);
static struct file *mtty_plain_set_state(struct vfio_device *vdev, enum vfio_device_mig_state new_state);
static struct file *mtty_set_state(struct vfio_device *vdev, enum vfio_device_mig_state new_state);
static int mtty_plain_get_data_size(struct vfio_device *vdev, unsigned long *length);
static int mtty_get_data_size(struct vfio_device *vdev, unsigned long *length);
static ssize_t mtty_plain_save_read(struct file *filp, char __user *buf, size_t len, loff_t *pos);
static ssize_t mtty_save_read(struct file *filp, char __user *buf, size_t len, loff_t *pos);
static ssize_t mtty_plain_resume_write(struct file *filp, const char __user *buf, size_t len, loff_t *pos);
static ssize_t mtty_resume_write(struct file *filp, const char __user *buf, size_t len, loff_t *pos);
static long mtty_plain_precopy_ioctl(struct file *filp, unsigned int cmd, unsigned long arg);
static long mtty_precopy_ioctl(struct file *filp, unsigned int cmd, unsigned long arg);
static int mtty_plain_release_migf(struct inode *inode, struct file *filp);
static int mtty_release_migf(struct inode *inode, struct file *filp);
static int mtty_plain_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes,
                                u64 *page_size);
static int mtty_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes,
                          u64 *page_size);
static int mtty_plain_log_stop(struct vfio_device *vdev);
static int mtty_log_stop(struct vfio_device *vdev);
static int mtty_plain_log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
                                         struct iova_bitmap *dirty);
static int mtty_log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
                                   struct iova_bitmap *dirty);
static int mtty_plain_reset(struct mdev_state *mdev_state);
static int mtty_reset(struct mdev_state *mdev_state);
static int mtty_plain_init_dev(struct vfio_device *vdev);
static int mtty_init_dev(struct vfio_device *vdev);
static int __init mtty_plain_dev_init(void);
static int __init mtty_dev_init(void);
static void __exit mtty_plain_dev_exit(void);
static void __exit mtty_dev_exit(void);

static const struct attribute_group mtty_test_group;

#endif
