@echo off
rem The hpcbn command from a clone on Windows: builds what changed (HBN_NO_BUILD=1: never), then runs the command. Usage: hpcbn --help
rem There is no native build on Windows: HBN_PATH names a libhbn.dll (build/cross/windows.sh makes one on Debian), and without one the reference backend runs.
setlocal
set "DOTNET_NOLOGO=1"
set "DOTNET_CLI_TELEMETRY_OPTOUT=1"
where dotnet >nul 2>nul
if errorlevel 1 (
    echo hpcbn: the .NET 10 SDK is missing ^("dotnet" is not on PATH^). Install it: https://learn.microsoft.com/dotnet/core/install/windows 1>&2
    exit /b 1
)
if not "%HBN_NO_BUILD%"=="1" (
    dotnet build "%~dp0src\HpcBatchNorm.Cli" -c Release -v quiet -clp:ErrorsOnly 1>&2
    if errorlevel 1 exit /b 1
)
dotnet "%~dp0artifacts\bin\HpcBatchNorm.Cli\release\hpcbn.dll" %*
exit /b %errorlevel%
