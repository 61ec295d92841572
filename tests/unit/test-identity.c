/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Copies of /sys with the devices that there are, and with what may be wrong in it; config spaces, good and bad. */

#include <sys/stat.h>

#include "daemon/identity.h"
#include "scratch.h"

#define VF   "/sys/bus/pci/devices/0000:3b:00.2"
#define MDEV "/sys/bus/mdev/devices/01234567-89ab-cdef-0123-456789abcdef"

static Scratch scratch;

static int setup(void **state)
{
        scratch_init(&scratch);
        return 0;
}

static int teardown(void **state)
{
        scratch_deinit(&scratch);
        return 0;
}

/* ---- a copy of /sys ---------------------------------------------------------------------------------------------- */

static void make_dir(const char *path)
{
        char part[512];

        (void) snprintf(part, sizeof part, "%s", path);
        for (char *p = part; (p = strchr(p, '/')); *p++ = '/') {
                *p = 0;
                (void) mkdir(scratch_path(&scratch, part), 0700);
        }
        (void) mkdir(scratch_path(&scratch, path), 0700);
}

static void make_file(const char *dir, const char *name, const char *text)
{
        char path[512];

        make_dir(dir);
        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        scratch_write(&scratch, path, text, strlen(text));
}

static void make_link(const char *dir, const char *name, const char *to)
{
        char path[512];

        make_dir(dir);
        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        assert_int_equal(symlink(to, scratch_path(&scratch, path)), 0);
}

static void make_ids(const char *dir)
{
        make_file(dir, "vendor", "0x15b3\n");
        make_file(dir, "device", "0x101e\n");
        make_file(dir, "subsystem_vendor", "0x15b3\n");
        make_file(dir, "subsystem_device", "0x0051\n");
        make_file(dir, "class", "0x020000\n");
        make_file(dir, "revision", "0x00\n");
        make_file(dir, "numa_node", "1\n");
}

static void read_it(const char *sysfs, ManifestDevice *ret)
{
        *ret = (ManifestDevice){};
        assert_int_equal(identity_read_sysfs(scratch.dir, sysfs, ret), 0);
}

static void assert_fact(const ManifestDevice *device, const char *key, const char *value)
{
        const char *known = manifest_fact(device, key);

        if (!value) {
                assert_null(known);
                return;
        }
        assert_non_null(known);
        assert_string_equal(known, value);
}

/* ---- sysfs ------------------------------------------------------------------------------------------------------- */

static void test_a_virtual_function_has_its_ids_and_what_its_parent_shows(void **state)
{
        const char *pf = "devices/pci0000:3a/0000:3b:00.0", *vf = "devices/pci0000:3a/0000:3b:00.2";
        ManifestDevice device;

        make_ids(vf);
        make_link(vf, "driver", "../../../bus/pci/drivers/mlx5_vfio_pci");
        make_link(vf, "physfn", "../0000:3b:00.0");
        make_file("devices/pci0000:3a/0000:3b:00.0/infiniband/mlx5_0", "fw_ver", "22.41.1000\n");
        make_file("devices/pci0000:3a/0000:3b:00.0/infiniband/mlx5_0", "board_id", "MT_0000000359\n");
        make_ids(pf);
        make_link("bus/pci/devices", "0000:3b:00.2", "../../../devices/pci0000:3a/0000:3b:00.2");
        read_it(VF, &device);
        assert_string_equal(device.driver, "mlx5_vfio_pci");
        assert_string_equal(device.device, "15b3:101e");
        assert_string_equal(device.subsystem, "15b3:0051");
        assert_fact(&device, "class", "020000");
        assert_fact(&device, "revision", "00");
        assert_fact(&device, "numa-node", "1");
        assert_fact(&device, "sriov-parent", "0000:3b:00.0");
        assert_fact(&device, "firmware", "22.41.1000");
        assert_fact(&device, "board", "MT_0000000359");
        assert_fact(&device, "mdev-type", NULL);
        manifest_device_forget(&device);
}

static void test_a_mediated_device_has_its_type_and_its_parents_ids(void **state)
{
        const char *mdev = "devices/pci0000:00/0000:00:05.0/01234567-89ab-cdef-0123-456789abcdef";
        ManifestDevice device;

        make_ids("devices/pci0000:00/0000:00:05.0");
        make_link("devices/pci0000:00/0000:00:05.0", "driver", "../../../bus/pci/drivers/nvidia");
        make_link(mdev, "driver", "../../../../bus/mdev/drivers/nvidia-vgpu-vfio");
        make_link(mdev, "mdev_type", "../mdev_supported_types/nvidia-259");
        make_link("bus/mdev/devices", "01234567-89ab-cdef-0123-456789abcdef",
                  "../../../devices/pci0000:00/0000:00:05.0/01234567-89ab-cdef-0123-456789abcdef");
        read_it(MDEV, &device);
        assert_string_equal(device.driver, "nvidia-vgpu-vfio");
        assert_string_equal(device.device, "");
        assert_fact(&device, "mdev-type", "nvidia-259");
        assert_fact(&device, "parent-device", "15b3:101e");
        assert_fact(&device, "parent-driver", "nvidia");
        manifest_device_forget(&device);
}

static void test_a_plain_function_has_no_parent(void **state)
{
        ManifestDevice device;

        make_ids("bus/pci/devices/0000:3b:00.2");
        make_file("bus/pci/devices/0000:3b:00.2/nvme/nvme0", "firmware_rev", "EXA7301Q\n");
        read_it(VF, &device);
        assert_string_equal(device.driver, "");
        assert_fact(&device, "firmware", "EXA7301Q");
        assert_fact(&device, "sriov-parent", NULL);
        assert_fact(&device, "parent-device", NULL);
        manifest_device_forget(&device);
}

static void test_what_is_not_there_is_not_known(void **state)
{
        static const char *const paths[] = {VF, "", "/sys", "/sys/bus/pci/devices/", "/etc", "relative"};

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                ManifestDevice device;

                read_it(paths[i], &device);
                assert_string_equal(device.driver, "");
                assert_string_equal(device.device, "");
                assert_int_equal(device.n_facts, 0);
                manifest_device_forget(&device);
        }
}

/* The kernel's word is good, but a driver's may be anything. */
static void test_odd_words_are_left_out_or_made_printable(void **state)
{
        const char *dir = "bus/pci/devices/0000:3b:00.2";
        char longest[FACT_VALUE_MAX + 1], longer[4096];
        ManifestDevice device;

        memset(longest, 'f', sizeof longest - 1);
        longest[sizeof longest - 1] = 0;
        memset(longer, 'f', sizeof longer - 1);
        longer[sizeof longer - 1] = 0;
        make_file(dir, "vendor", "0x15B3\n");
        make_file(dir, "device", "0x101e\n");
        make_file(dir, "class", "0x");
        make_file(dir, "revision", "0x123456789\n");
        make_file(dir, "numa_node", "-1\n");
        make_file("bus/pci/devices/0000:3b:00.2/infiniband/a", "fw_ver", longest);
        make_file("bus/pci/devices/0000:3b:00.2/infiniband/a", "board_id", longer);
        make_link(dir, "physfn", "../a\nb");
        read_it(VF, &device);
        assert_string_equal(device.device, "");
        assert_fact(&device, "class", NULL);
        assert_fact(&device, "revision", NULL);
        assert_fact(&device, "numa-node", NULL);
        assert_fact(&device, "firmware", longest);
        assert_fact(&device, "board", NULL);
        assert_fact(&device, "sriov-parent", "a?b");
        manifest_device_forget(&device);
}

/* A directory where a file should be, a fifo that nobody writes, a link to itself: none of it holds the daemon up. */
static void test_what_is_no_file_holds_nobody_up(void **state)
{
        const char *dir = "bus/pci/devices/0000:3b:00.2";
        ManifestDevice device;

        make_dir("bus/pci/devices/0000:3b:00.2/vendor");
        assert_int_equal(mkfifo(scratch_path(&scratch, "bus/pci/devices/0000:3b:00.2/device"), 0600), 0);
        make_link(dir, "physfn", "physfn");
        read_it(VF, &device);
        assert_string_equal(device.device, "");
        assert_fact(&device, "sriov-parent", "physfn");
        manifest_device_forget(&device);
}

/* ---- config space ------------------------------------------------------------------------------------------------ */

static DeviceIdentity make_config(void)
{
        DeviceIdentity identity = {.n_config = DEVICE_CONFIG_MAX};

        memcpy(identity.config, "\x36\x1b\x10\x00", 4);
        memcpy(identity.config + 8, "\x02\x02\x08\x01", 4);
        memcpy(identity.config + 0x2c, "\xf4\x1a\x00\x11", 4);
        return identity;
}

static void test_a_config_space_says_what_a_device_is(void **state)
{
        DeviceIdentity identity = make_config();
        ManifestDevice device = {};

        assert_int_equal(identity_take_config(&identity, &device), 0);
        assert_string_equal(device.device, "1b36:0010");
        assert_string_equal(device.subsystem, "1af4:1100");
        assert_fact(&device, "class", "010802");
        assert_fact(&device, "revision", "02");
        manifest_device_forget(&device);
}

/* A VMM may change what a guest sees there: the kernel's own word counts. */
static void test_what_sysfs_says_stays(void **state)
{
        DeviceIdentity identity = make_config();
        ManifestDevice device = {.device = "15b3:101e"};

        assert_int_equal(manifest_add_fact(&device, "revision", "77"), 0);
        assert_int_equal(identity_take_config(&identity, &device), 0);
        assert_string_equal(device.device, "15b3:101e");
        assert_fact(&device, "revision", "77");
        manifest_device_forget(&device);
}

static void test_a_config_space_without_a_device_says_nothing(void **state)
{
        for (int i = 0; i < 3; i++) {
                DeviceIdentity identity = make_config();
                ManifestDevice device = {};

                if (i == 0)
                        identity.n_config = DEVICE_CONFIG_MAX - 1;
                else
                        memset(identity.config, i == 1 ? 0 : 0xff, 2);
                assert_int_equal(identity_take_config(&identity, &device), 0);
                assert_string_equal(device.device, "");
                assert_int_equal(device.n_facts, 0);
                manifest_device_forget(&device);
        }
}

static void test_a_bridge_has_no_subsystem_there(void **state)
{
        DeviceIdentity identity = make_config();
        ManifestDevice device = {};

        identity.config[0x0e] = 0x81;
        assert_int_equal(identity_take_config(&identity, &device), 0);
        assert_string_equal(device.device, "1b36:0010");
        assert_string_equal(device.subsystem, "");
        manifest_device_forget(&device);
}

/* ---- isolation --------------------------------------------------------------------------------------------------- */

static void test_who_is_isolated(void **state)
{
        static const DeviceDefinition behind = {.type = DEVICE_TYPE_VFIO_USER,
                                                .socket = "/s",
                                                .broker = "/b"},
                                      beside = {.type = DEVICE_TYPE_VFIO_USER, .socket = "/s"},
                                      driven = {.type = DEVICE_TYPE_VFIO, .vmm_device = "gpu"},
                                      opened = {.type = DEVICE_TYPE_VFIO, .sysfs = VF};
        const struct {
                const DeviceDefinition *definition;
                bool used;
        } cases[] = {{&behind, true}, {&beside, false}, {&driven, true}, {&opened, false}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                for (uint32_t windows = 0; windows < DEVICE_WINDOWS_MAX; windows++)
                        for (DeviceIsolation said = 0; said < DEVICE_ISOLATION_MAX; said++) {
                                DeviceIdentity identity = {.windows = windows};
                                bool full = !cases[i].used || windows == DEVICE_WINDOWS_NONE;

                                assert_int_equal(identity_isolation(cases[i].definition, &identity, said),
                                                 full ? DEVICE_ISOLATION_FULL : said);
                        }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TEST(test_a_virtual_function_has_its_ids_and_what_its_parent_shows),
                TEST(test_a_mediated_device_has_its_type_and_its_parents_ids),
                TEST(test_a_plain_function_has_no_parent),
                TEST(test_what_is_not_there_is_not_known),
                TEST(test_odd_words_are_left_out_or_made_printable),
                TEST(test_what_is_no_file_holds_nobody_up),
                TEST(test_a_config_space_says_what_a_device_is),
                TEST(test_what_sysfs_says_stays),
                TEST(test_a_config_space_without_a_device_says_nothing),
                TEST(test_a_bridge_has_no_subsystem_there),
                TEST(test_who_is_isolated),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
