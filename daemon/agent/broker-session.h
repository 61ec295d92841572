/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a VMM has set up at the device's server: mapped memory and interrupt eventfds, with duplicates of the files.
 *
 * For each of them two things are known: whether the VMM wants it, and whether the server has it. They differ when the
 * server's connection was made anew (wanted, not there) and when the VMM has gone (there, not wanted). session_next() says
 * which command makes them agree; there is one such command at a time. Owned by the broker; knows no socket.
 *
 * Of the regions that the VMM may have mapped it is known which files they were: a server that has others now, because it is
 * another process, would never see what the guest writes there.
 */

#include "broker.h"
#include "vfio-user-message.h"

#define SESSION_MAPS_MAX    65535 /* vfio-user's own default (max_dma_maps) */
#define SESSION_VECTORS_MAX 2048  /* of one interrupt index: MSI-X has no more */
#define SESSION_INDEXES_MAX 16    /* interrupt indexes; PCI has five */
#define SESSION_REGIONS_MAX 16    /* regions with a file; PCI has nine regions */

typedef struct Session Session;

int session_new(Session **ret) _must_check_;
Session *session_free(Session *session);

/* Whether what a command of the VMM wants to add still has room. -ENOSPC. */
int session_has_room(const Session *session, const VfioUserMessage *command) _must_check_;

/* The server has accepted a command of the VMM (DMA_MAP, DMA_UNMAP, DEVICE_SET_IRQS; others change nothing). `wanted`
 * false: the VMM does not know, it was told that the command failed, or is gone. Takes the files it needs out of
 * `command`. -ENOMEM: it is not remembered. */
int session_accepted(Session *session, VfioUserMessage *command, bool wanted) _must_check_;

/* The VMM is given the file of a region, with the reply to this command. */
void session_gives_region(Session *session, const VfioUserMessage *command, const VfioUserMessage *reply);

/* The files that it was given so, as many as there is room for; how many. */
uint32_t session_regions(const Session *session, AgentFile *ret, uint32_t max);

/* The VMM is gone: nothing is wanted any more. */
void session_unwant(Session *session);
/* The server's connection is gone: it has nothing any more. */
void session_lose(Session *session);

/* The command that the server must be given next, as a message with number and payload, or NULL when both agree.
 * `files_max`: what the server takes at once. -ENOMEM and others: it can't be made now. */
int session_next(Session *session, uint32_t files_max, VfioUserMessage **ret) _must_check_;

/* What came of that command. `reply` NULL: it was refused; `give_up`: don't ask again before the next session_lose().
 * -ESTALE: the VMM has mapped a region's memory that the server does not have any more. */
int session_next_done(Session *session, const VfioUserMessage *command, const VfioUserMessage *reply,
                      bool give_up) _must_check_;

/* Whether a DMA_UNMAP of the VMM takes this memory away. */
bool session_unmaps(const VfioUserMessage *command, const BrokerMap *map);

/* What the VMM has mapped, in order of address. */
uint32_t session_maps(Session *session, const BrokerMap **ret);
