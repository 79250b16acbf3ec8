/* The module's side of its drivers: who they are, and what they are asked. */

#include "runtime.h"

struct broch_driver {
    u16 entry;
    const u8 *tag;
    u16 start, end; /* of its peripherals */
};

extern const struct broch_driver broch_drivers_start[], broch_drivers_end[];

static bool are_right; /* they were there when it was last looked; only a reset removes them */

bool broch_drivers_are_right(void)
{
    are_right = true;
    for (const struct broch_driver *driver = broch_drivers_start; driver < broch_drivers_end; driver++)
        if (!broch_verify(driver->entry, driver->tag))
            are_right = false;
    return are_right;
}

static u16 drive(const struct broch_driver *driver, u16 operation, u16 address, u16 value)
{
    if (!are_right || address < driver->start || address >= driver->end)
        broch_leave(STATUS_DRIVER);
    return broch_drive(driver->entry, operation, address - driver->start, value);
}

u8 broch_read(const struct broch_driver *driver, u16 address)
{
    return drive(driver, DRIVER_READ, address, 0);
}

u8 broch_write(const struct broch_driver *driver, u16 address, u8 value)
{
    return drive(driver, DRIVER_WRITE, address, value);
}

u8 broch_set(const struct broch_driver *driver, u16 address, u8 bits)
{
    return drive(driver, DRIVER_SET, address, bits);
}

u8 broch_clear(const struct broch_driver *driver, u16 address, u8 bits)
{
    return drive(driver, DRIVER_CLEAR, address, bits);
}

u8 broch_toggle(const struct broch_driver *driver, u16 address, u8 bits)
{
    return drive(driver, DRIVER_TOGGLE, address, bits);
}

u16 broch_read_word(const struct broch_driver *driver, u16 address)
{
    if (address & 1)
        broch_leave(STATUS_DRIVER);
    return drive(driver, DRIVER_READ | DRIVER_WORD, address, 0);
}

u16 broch_write_word(const struct broch_driver *driver, u16 address, u16 value)
{
    if (address & 1)
        broch_leave(STATUS_DRIVER);
    return drive(driver, DRIVER_WRITE | DRIVER_WORD, address, value);
}
