# CMake's description of x64 Windows, for a build on Debian with mingw-w64 (the variant with POSIX threads, which std::thread and OpenMP need).
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
# HBN_ONEDNN is where windows.sh puts oneDNN.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES HBN_ONEDNN)
set(CMAKE_FIND_ROOT_PATH ${HBN_ONEDNN} /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
