// What the operating system says about processors: the one place of libhbn that asks it anything.
#ifndef HBN_PROCESSORS_HPP
#define HBN_PROCESSORS_HPP

#include <cstdint>

namespace hbn {

// Physical cores this process may run on: processors of its affinity mask, hyperthreads of one core counted once. At least 1.
int32_t physical_cores();

} // namespace hbn

#endif
