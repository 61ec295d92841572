/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "p2p.h"

static bool has_p2p(const ManifestDevice *device)
{
        return device->migration_flags & DEVICE_MIGRATION_P2P;
}

/* Its VMM has given it memory: what is mapped there it can reach. */
static bool does_dma(const ManifestDevice *device)
{
        return device->migration_flags & (DEVICE_HAS_DMA | DEVICE_SUPERVISED);
}

/* It is a device of the guest's. One beside QEMU, or in a set without a VM, is in nobody's address space. */
static bool is_in_vm(const Manifest *manifest, const ManifestDevice *device)
{
        switch (manifest->vmm.type) {
        case VMM_TYPE_DELEGATE: return true;
        case VMM_TYPE_QMP: return device->migration_flags & DEVICE_SUPERVISED;
        case VMM_TYPE_NONE:
        case VMM_TYPE_MAX:
        case VMM_TYPE_INVALID: break;
        }
        return false;
}

bool p2p_reaches(const Manifest *manifest, uint32_t from, uint32_t to)
{
        const ManifestDevice *a = &manifest->devices[from], *b = &manifest->devices[to];

        return from != to && is_in_vm(manifest, a) && is_in_vm(manifest, b) && does_dma(a) &&
               b->isolation != DEVICE_ISOLATION_FULL;
}

bool p2p_is_member(const Manifest *manifest, uint32_t device)
{
        for (uint32_t i = 0; i < manifest->n_devices; i++)
                if (p2p_reaches(manifest, device, i) || p2p_reaches(manifest, i, device))
                        return true;
        return false;
}

static bool has_no_order(const Manifest *manifest, uint32_t device, uint32_t *ret_other)
{
        for (uint32_t i = 0; i < manifest->n_devices; i++)
                if (!has_p2p(&manifest->devices[i]) && p2p_reaches(manifest, device, i) &&
                    p2p_reaches(manifest, i, device)) {
                        *ret_other = i;
                        return true;
                }
        return false;
}

uint32_t p2p_count_devices(const Manifest *manifest)
{
        uint32_t n = manifest->vmm.n_vfio_user;

        for (uint32_t i = 0; i < manifest->n_devices; i++)
                n += is_in_vm(manifest, &manifest->devices[i]);
        return n;
}

/* Not what is known of who reaches whom: whoever says `single` trusts no such word. */
static bool is_not_single(const Manifest *manifest, uint32_t device)
{
        return is_in_vm(manifest, &manifest->devices[device]) && p2p_count_devices(manifest) > 1;
}

P2pVerdict p2p_judge(const Manifest *manifest, uint32_t device, PolicyP2p word, uint32_t *ret_other)
{
        if (has_p2p(&manifest->devices[device]))
                return P2P_FINE;
        if (word == POLICY_P2P_SINGLE)
                return is_not_single(manifest, device) ? P2P_NOT_SINGLE : P2P_FINE;
        if (!p2p_is_member(manifest, device))
                return P2P_FINE;
        if (word == POLICY_P2P_ACCEPT_RISK)
                return P2P_RISK;
        if (has_no_order(manifest, device, ret_other))
                return P2P_NO_ORDER;
        switch (word) {
        case POLICY_P2P_ISOLATE:
                return manifest->devices[device].isolation == DEVICE_ISOLATION_FULL ? P2P_FINE
                                                                                    : P2P_NOT_ISOLATED;
        case POLICY_P2P_SINGLE:
        case POLICY_P2P_REQUIRE:
        case POLICY_P2P_ACCEPT_RISK: break;
        }
        return P2P_REQUIRED;
}
