using HpcBatchNorm.Interchange;

namespace HpcBatchNorm.Tests.Interchange;

public sealed class ClassNameListTests
{
    [Theory]
    [InlineData("tench, Tinca tinca", "goldfish, Carassius auratus")]
    [InlineData("a \"quoted\" name", "back\\slash", "", " blank ", "[bracket]", "line\nbreak")]
    [InlineData("Bäume", "猫", "🐈", "\u0000", "é")]
    [InlineData("0", "1")]
    [InlineData]
    public void Read_WhatWasWritten_GivesTheSameNames(params string[] names) => Assert.Equal(names, ClassNameList.Read(ClassNameList.Write(names)));

    [Fact]
    public void Write_LettersOfAnyLanguage_StayReadable() => Assert.Equal("[\"Bäume\",\"猫, <b>\"]", ClassNameList.Write(["Bäume", "猫, <b>"]));

    [Theory]
    [InlineData("n01440764,n01443537", "n01440764", "n01443537")]
    [InlineData("cat", "cat")]
    [InlineData("[cat,dog]", "[cat", "dog]")]
    [InlineData("[1,2]", "[1", "2]")]
    public void Read_NamesSeparatedByCommas_AsBefore(string text, params string[] expected) => Assert.Equal(expected, ClassNameList.Read(text));
}
